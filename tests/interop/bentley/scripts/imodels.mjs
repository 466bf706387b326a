// @itwin/imodels-client-management, and the authoring client where it creates iModels: iModels from birth to deletion.
import { readFileSync } from "node:fs";
import path from "node:path";
import { assert, as, check, given, operations, refused, require, watched } from "./harness.mjs";
import * as entities from "./entities.mjs";

const management = require("@itwin/imodels-client-management");
const authoring = require("@itwin/imodels-client-authoring");
const { AzureClientStorage, BlockBlobClientWrapperFactory } = require("@itwin/object-storage-azure");
const { ITwinsAccessClient } = require("@itwin/itwins-client");
const { ContainerTypes, IModelOrderByProperty, OrderByOperator, ThumbnailSize, take, toArray } = management;

const api = { baseUrl: `${given.url}/imodels` };
const called = new Set();
const client = watched(new management.IModelsClient({ api }), called);
const cloudStorage = new AzureClientStorage(new BlockBlobClientWrapperFactory());
const author = watched(new authoring.IModelsClient({ api, cloudStorage }), new Set());
const authorization = as("anna");
const headers = { "X-Correlation-Id": () => crypto.randomUUID() };

const itwins = new ITwinsAccessClient(`${given.url}/itwins`);
const token = `Bearer ${given.tokens.anna}`;
const made = await itwins.createiTwin(token, {
  class: "Endeavor",
  subClass: "Project",
  displayName: `iModels of ${crypto.randomUUID()}`,
});
const iTwinId = made.data.id;
const ALL = ContainerTypes.SchemaSync | ContainerTypes.CodeStore | ContainerTypes.ViewStore;
const extent = { southWest: { latitude: 1, longitude: 2 }, northEast: { latitude: 3, longitude: 4 } };
const [interchange] = (await itwins.queryAsync(token, "Project", { number: "NL-A12-0042" })).data;
const [deck] = (await itwins.queryAsync(token, "Project", { number: "NL-MAAS-0017" })).data;
const ofITwin = (id, urlParams) =>
  toArray(client.iModels.getRepresentationList({ authorization, urlParams: { iTwinId: id, ...urlParams } }));
const roads = (await ofITwin(interchange.id, { name: "A12 Interchange - Roads" }))[0];
const changesetsOf = (iModelId) => toArray(client.changesets.getMinimalList({ authorization, iModelId }));
const source = await changesetsOf(roads.id);
const named = (name, more) => ({ iTwinId, name, ...more });
const createEmpty = (iModelProperties) => client.iModels.createEmpty({ authorization, headers, iModelProperties });
const operation = (iModelId) => client.operations.getCreateIModelDetails({ authorization, iModelId });

await check("creates an empty iModel that is usable at once", async () => {
  const wanted = named("Empty", { description: "Sample iModel description", extent });
  const iModel = await createEmpty(wanted);
  await entities.iModel(iModel, wanted);
  assert.deepEqual(await operation(iModel.id), { state: "successful", clonedFrom: null, forkedFrom: null });
});

await check("creates an empty iModel in its own time, with a coordinate system", async () => {
  const geographicCoordinateSystem = { horizontalCRSId: "EPSG:3857" };
  const wanted = named("Empty with GCS", { creationMode: "empty", geographicCoordinateSystem, extent });
  await entities.iModel(await createEmpty(wanted), wanted);
});

await check("refuses by itself a coordinate system without the creation mode for it", async () => {
  const geographicCoordinateSystem = { horizontalCRSId: "EPSG:3857" };
  await refused(createEmpty(named("GCS", { geographicCoordinateSystem })), "InvalidIModelGCSCreationMode");
});

await check("creates iModels from a template, as a whole, with a coordinate system and up to a changeset", async () => {
  const template = { iModelId: roads.id };
  for (const [name, more] of [
    ["From template", { template }],
    ["From template (GCS)", { template, geographicCoordinateSystem: { horizontalCRSId: "EPSG:3857" } }],
    ["From template (changeset)", { template: { ...template, changesetId: source[5].id } }],
  ]) {
    const iModelProperties = named(name, { ...more, containersEnabled: ALL });
    const iModel = await client.iModels.createFromTemplate({ authorization, headers, iModelProperties });
    await entities.iModel(iModel, { ...iModelProperties, extent: roads.extent });
    assert.equal((await changesetsOf(iModel.id)).length, 0, "its history is squashed");
  }
});

await check("clones an iModel up to a changeset", async () => {
  const iModelProperties = named("Clone", { changesetIndex: 3, containersEnabled: ALL });
  const iModel = await client.iModels.clone({ authorization, headers, iModelId: roads.id, iModelProperties });
  const { description } = roads;
  await entities.iModel(iModel, { ...iModelProperties, description, extent: roads.extent });
  assert.notEqual(iModel.lastChangesetPushDateTime, null);
  assert.deepEqual((await changesetsOf(iModel.id)).map((one) => one.id), source.slice(0, 3).map((one) => one.id));
  const { state, clonedFrom, forkedFrom } = await operation(iModel.id);
  assert.deepEqual([state, clonedFrom.iModelId, clonedFrom.changesetId], ["successful", roads.id, source[2].id]);
  assert.equal(forkedFrom, null);
});

await check("clones an iModel by its own name, and only its baseline", async () => {
  const iModelProperties = { iTwinId, changesetIndex: 0 };
  const iModel = await client.iModels.clone({ authorization, iModelId: roads.id, iModelProperties });
  assert.equal(iModel.name, roads.name);
  assert.equal((await changesetsOf(iModel.id)).length, 0);
  assert.equal(iModel.lastChangesetPushDateTime, null);
});

await check("forks an iModel with its history", async () => {
  const iModelProperties = named("Fork", { preserveHistory: true, containersEnabled: ALL });
  const iModel = await client.iModels.fork({ authorization, headers, iModelId: roads.id, iModelProperties });
  assert.equal(iModel.description, roads.description);
  assert.equal((await changesetsOf(iModel.id)).length, source.length);
  const { forkedFrom } = await operation(iModel.id);
  assert.deepEqual([forkedFrom.iModelId, forkedFrom.changesetId], [roads.id, source.at(-1).id]);
  assert.ok(forkedFrom.relationshipId);
});

await check("forks an iModel without its history", async () => {
  const iModelProperties = named("Squashed fork", { description: "of its own" });
  const iModel = await client.iModels.fork({ authorization, iModelId: roads.id, iModelProperties });
  assert.equal(iModel.description, "of its own");
  assert.equal((await changesetsOf(iModel.id)).length, 0);
});

await check("learns that an iModel without federation GUIDs cannot be forked", async () => {
  const [legacy] = await ofITwin(deck.id, { name: "Maas Crossing - Existing Condition" });
  const forked = client.iModels.fork({ authorization, iModelId: legacy.id, iModelProperties: named("Legacy fork") });
  await refused(forked, "MainIModelIsMissingFederationGuids");
});

await check("creates an iModel from a baseline file, and gets the same bytes back", async () => {
  const filePath = path.join(given.folder, "baseline.bim");
  const iModelProperties = named("From baseline", { filePath, containersEnabled: ALL, description: "d" });
  const iModel = await author.iModels.createFromBaseline({ authorization, headers, iModelProperties });
  await entities.iModel(iModel, iModelProperties);
  const file = await author.baselineFiles.getSingle({ authorization, iModelId: iModel.id });
  assert.deepEqual([file.state, file.displayName], ["initialized", `${file.id}.bim`]);
  const uploaded = readFileSync(filePath);
  assert.equal(file.fileSize, uploaded.length);
  entities.link(file._links.creator, true, "creator");
  assert.equal(file._links.download.storageType, "azure");
  const target = path.join(given.folder, "downloaded.bim");
  await cloudStorage.download({ url: file._links.download.href, storageType: "azure", transferType: "local", localPath: target });
  assert.ok(readFileSync(target).equals(uploaded));
});

await check("learns that a file was no baseline", async () => {
  const filePath = path.join(given.folder, "briefcase.bim");
  const iModelProperties = named("From briefcase", { filePath });
  const thrown = await refused(
    author.iModels.createFromBaseline({ authorization, iModelProperties }),
    "BaselineFileInitializationFailed",
  );
  assert.match(thrown.message, /fileIsBriefcase/);
});

await check("updates name, description and extent, and leaves the rest as it was", async () => {
  let wanted = named("For update", { description: "before", extent });
  const { id: iModelId } = await createEmpty(wanted);
  const turned = { southWest: { latitude: 80, longitude: 170 }, northEast: { latitude: -80, longitude: -170 } };
  for (const change of [{ name: "Updated" }, { description: "after" }, { extent: turned }]) {
    wanted = { ...wanted, ...change };
    await entities.iModel(await client.iModels.update({ authorization, headers, iModelId, iModelProperties: change }), wanted);
  }
  await entities.iModel(await client.iModels.getSingle({ authorization, headers, iModelId }), wanted);
});

await check("lists all iModels of an iTwin page by page, minimal and in full", async () => {
  const full = await ofITwin(iTwinId, { $top: 5 });
  assert.ok(full.length > 10, `only ${full.length}`);
  const lean = await toArray(client.iModels.getMinimalList({ authorization, urlParams: { iTwinId, $top: 5 } }));
  assert.deepEqual(lean.map((one) => one.id), full.map((one) => one.id));
  assert.deepEqual(Object.keys(lean[0]).sort(), ["displayName", "id"]);
  assert.equal((await take(client.iModels.getMinimalList({ authorization, urlParams: { iTwinId, $top: 1 } }), 1)).length, 1);
  const tokens = await ofITwin(iTwinId, { $top: 5, $continuationToken: "" });
  assert.deepEqual(tokens.map((one) => one.id), full.map((one) => one.id));
});

await check("lists iModels in the order asked for", async () => {
  const ids = async (property, operator) =>
    (await ofITwin(iTwinId, { $orderBy: { property, operator } })).map((one) => one.id);
  for (const property of [IModelOrderByProperty.Name, IModelOrderByProperty.CreatedDateTime]) {
    const up = await ids(property);
    assert.deepEqual(await ids(property, OrderByOperator.Descending), [...up].reverse());
  }
});

await check("finds iModels by name, by part of their name or description, and by state", async () => {
  assert.deepEqual((await ofITwin(iTwinId, { name: "Clone" })).map((one) => one.name), ["Clone"]);
  assert.deepEqual((await ofITwin(iTwinId, { $search: "updat" })).map((one) => one.name), ["Updated"]);
  assert.deepEqual((await ofITwin(iTwinId, { $search: "sample IMODEL" })).map((one) => one.name), ["Empty"]);
  assert.deepEqual(await ofITwin(iTwinId, { name: "Non existent name" }), []);
  assert.deepEqual(await ofITwin(iTwinId, { $search: "Non existent" }), []);
  for (const state of ["initialized", "notInitialized"]) {
    const some = await ofITwin(iTwinId, { state });
    assert.ok(some.length > 0, state);
    for (const one of some) assert.equal(one.state, state);
  }
});

await check("keeps favorites, minimal and in full, page by page", async () => {
  const mine = await ofITwin(iTwinId, { $top: 3 }).then((all) => all.slice(0, 3).map((one) => one.id));
  for (const iModelId of mine) await client.favoriteIModels.add({ authorization, iModelId });
  const urlParams = { iTwinId, $top: 2 };
  const lean = await toArray(client.favoriteIModels.getMinimalList({ authorization, urlParams }));
  assert.deepEqual(lean.map((one) => one.id).sort(), [...mine].sort());
  const [first] = await toArray(client.favoriteIModels.getRepresentationList({ authorization, urlParams }));
  assert.equal(first.iTwinId, iTwinId);
  for (const iModelId of mine) await client.favoriteIModels.remove({ authorization, iModelId });
  assert.deepEqual(await toArray(client.favoriteIModels.getMinimalList({ authorization, urlParams })), []);
});

await check("keeps recents, the last one used first", async () => {
  const [one, other] = await ofITwin(iTwinId, { $top: 2 });
  const urlParams = { iTwinId };
  for (const { id } of [one, other, one]) await client.recentIModels.add({ authorization, iModelId: id });
  const lean = await toArray(client.recentIModels.getMinimalList({ authorization, urlParams }));
  assert.deepEqual(lean.slice(0, 2).map((found) => found.id), [one.id, other.id]);
  const full = await toArray(client.recentIModels.getRepresentationList({ authorization, urlParams }));
  assert.equal(full[0].name, one.name);
  await client.recentIModels.remove({ authorization, iModelId: one.id });
  const left = await toArray(client.recentIModels.getMinimalList({ authorization, urlParams }));
  assert.ok(!left.some((found) => found.id === one.id));
});

await check("downloads thumbnails in two sizes and uploads new ones as PNG and JPEG", async () => {
  const { id: iModelId } = await createEmpty(named("With thumbnail"));
  let before = await client.thumbnails.download({ authorization, iModelId });
  assert.deepEqual([before.size, before.imageType], [ThumbnailSize.Small, "image/png"]);
  const large = await client.thumbnails.download({ authorization, iModelId, urlParams: { size: ThumbnailSize.Large } });
  assert.equal(large.size, ThumbnailSize.Large);
  assert.ok(large.image.length > before.image.length);
  for (const [name, imageType] of [["picture.png", "image/png"], ["picture.jpg", "image/jpeg"]]) {
    const image = readFileSync(path.join(given.folder, name));
    await client.thumbnails.upload({ authorization, iModelId, thumbnailProperties: { imageType, image } });
    const after = await client.thumbnails.download({ authorization, iModelId });
    assert.equal(after.imageType, "image/png");
    assert.notEqual(after.image.length, before.image.length);
    before = after;
  }
});

await check("reads the permissions of an administrator", async () => {
  const { permissions } = await client.userPermissions.get({ authorization, iModelId: roads.id });
  const expected = ["imodels_manage", "imodels_read", "imodels_webview", "imodels_write"];
  assert.deepEqual([...permissions].sort(), expected);
});

await check("reads the permissions of somebody who may only look", async () => {
  const { permissions } = await client.userPermissions.get({ authorization: as("priya"), iModelId: roads.id });
  assert.deepEqual(permissions, ["imodels_webview"]);
});

await check("is told the details of what is invalid, in the words of the platform", async () => {
  const thrown = await refused(
    createEmpty(named("Invalid", { description: "x".repeat(256) })),
    "InvalidiModelsRequest",
    "Cannot create iModel. Details:\n1. InvalidValue: Provided 'description' value is not valid. " +
      "The value exceeds allowed 255 characters. Target: description.\n",
  );
  assert.deepEqual(thrown.details.map((one) => [one.code, one.target]), [["InvalidValue", "description"]]);
  assert.equal(thrown.statusCode, 422);
});

await check("is told that a name is taken", async () => {
  const thrown = await refused(createEmpty(named("Empty")), "iModelExists");
  assert.equal(thrown.statusCode, 409);
});

await check("is told that a token is not valid", async () => {
  const invalid = async () => ({ scheme: "Bearer", token: "invalid token" });
  const iModelProperties = named("Unauthorized");
  await refused(
    client.iModels.createEmpty({ authorization: invalid, headers, iModelProperties }),
    "Unauthorized",
    "Access denied due to invalid access_token. Make sure that issuer is correct, the token is not expired and is not corrupted.",
  );
});

await check("is told that an iModel is not found, whether its id is unknown or no id at all", async () => {
  for (const iModelId of ["invalidIModelId", "22acf21e-0575-4faf-849b-bcd538718269"])
    for (const ask of [
      () => client.iModels.getSingle({ authorization, iModelId }),
      () => client.iModels.delete({ authorization, iModelId }),
      () => client.iModels.update({ authorization, iModelId, iModelProperties: { name: "x" } }),
      () => client.userPermissions.get({ authorization, iModelId }),
      () => client.operations.getCreateIModelDetails({ authorization, iModelId }),
      () => client.favoriteIModels.add({ authorization, iModelId }),
      () => client.recentIModels.add({ authorization, iModelId }),
      () => toArray(client.users.getMinimalList({ authorization, iModelId })),
    ])
      await refused(ask(), "iModelNotFound", "Requested iModel is not available.");
});

await check("is told that an iTwin is not found", async () => {
  await refused(ofITwin("22acf21e-0575-4faf-849b-bcd538718269"), "iTwinNotFound");
});

await check("is told that permissions are missing", async () => {
  const authorization = as("priya");
  const { id: iModelId } = roads;
  const iModelProperties = { iTwinId: interchange.id, name: "Not for viewers" };
  for (const ask of [
    () => client.iModels.createEmpty({ authorization, iModelProperties }),
    () => client.iModels.update({ authorization, iModelId, iModelProperties: { name: "x" } }),
    () => client.iModels.delete({ authorization, iModelId }),
  ]) {
    const thrown = await refused(ask(), "InsufficientPermissions");
    assert.equal(thrown.statusCode, 403);
  }
});

await check("another organization's iModels are not found", async () => {
  await refused(client.iModels.getSingle({ authorization: as("luca"), iModelId: roads.id }), "iModelNotFound");
});

await check("deletes iModels, which are gone then", async () => {
  for (const { id: iModelId } of await ofITwin(iTwinId)) {
    await client.iModels.delete({ authorization, headers, iModelId });
    await refused(client.iModels.getSingle({ authorization, iModelId }), "iModelNotFound");
  }
  assert.deepEqual(await ofITwin(iTwinId), []);
  assert.equal((await itwins.deleteiTwin(token, iTwinId)).status, 204);
});

await check("every operation of the client on iModels themselves has been called", async () => {
  const groups = ["iModels", "favoriteIModels", "recentIModels", "thumbnails", "userPermissions", "operations"];
  const all = operations("@itwin/imodels-client-management").filter((name) => groups.includes(name.split(".")[0]));
  assert.ok(all.length >= 21, `only ${all} are declared`);
  assert.deepEqual(all.filter((name) => !called.has(name)), []);
});
