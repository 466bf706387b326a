// @itwin/itwins-client 1.6.1: every method, held to what its makers' integration suite asserts.
import path from "node:path";
import { assert, check, given, methods, require, watched } from "./harness.mjs";

const { ITwinsAccessClient } = require("@itwin/itwins-client");
const called = new Set();
const client = watched(new ITwinsAccessClient(`${given.url}/itwins`), called);
const token = `Bearer ${given.tokens.anna}`;
const NOBODY = "22acf21e-0575-4faf-849b-bcd538718269";
const wms = {
  class: "GeographicInformationSystem",
  subClass: "WebMapService",
  uri: "https://www.sciencebase.gov/arcgis/rest/services/Catalog/5888bf4fe4b05ccb964bab9d/MapServer",
};
const bridge = () => ({
  displayName: `APIM iTwin Test Display Name ${crypto.randomUUID()}`,
  number: `APIM iTwin Test Number ${crypto.randomUUID()}`,
  type: "Bridge",
  subClass: "Asset",
  class: "Thing",
  dataCenterLocation: "East US",
  status: "Trial",
});

function found(answer) {
  assert.equal(answer.status, 200, JSON.stringify(answer));
  assert.ok(answer.data.length > 0, "nothing found");
  return answer.data;
}

function detailed(iTwins) {
  for (const one of iTwins)
    for (const name of ["parentId", "iTwinAccountId", "createdDateTime", "createdBy"])
      assert.equal(typeof one[name], "string", `${name} of ${one.displayName}`);
}

function refusedAs(answer, status, code, detail, target) {
  assert.equal(answer.status, status, JSON.stringify(answer));
  assert.equal(answer.data, undefined);
  assert.equal(answer.error.code, code);
  if (detail) assert.deepEqual([answer.error.details[0].code, answer.error.details[0].target], [detail, target]);
}

async function withITwin(body) {
  const made = await client.createiTwin(token, bridge());
  assert.equal(made.status, 201, JSON.stringify(made));
  try {
    await body(made.data.id);
  } finally {
    const deleted = await client.deleteiTwin(token, made.data.id);
    assert.deepEqual([deleted.status, deleted.data], [204, undefined]);
  }
}

const [project] = (await client.queryAsync(token, "Project", { number: "NL-A12-0042" })).data;

const KINDS = [
  ["Project", "Endeavor"],
  ["Asset", "Thing"],
];
const every = async (subClass) => found(await client.queryAsync(token, subClass));

await check("lists iTwins of one subclass, with little about each", async () => {
  const minimal = ["class", "displayName", "id", "number", "subClass", "type"];
  for (const [subClass, kind] of KINDS)
    for (const one of await every(subClass)) {
      assert.deepEqual([one.class, one.subClass], [kind, subClass]);
      assert.deepEqual(Object.keys(one).sort(), minimal);
    }
});

await check("represents iTwins of one subclass in full when asked to", async () => {
  for (const [subClass] of KINDS)
    detailed(found(await client.queryAsync(token, subClass, { resultMode: "representation" })));
});

await check("pages through iTwins by top and skip", async () => {
  for (const [subClass] of KINDS) {
    const ids = (await every(subClass)).map((one) => one.id);
    const paged = [];
    for (let skip = 0; skip < ids.length; skip += 2) {
      const page = found(await client.queryAsync(token, subClass, { top: 2, skip }));
      assert.ok(page.length <= 2);
      paged.push(...page.map((one) => one.id));
    }
    assert.deepEqual(paged, ids);
  }
});

await check("finds iTwins by exact name, by exact number and by a search", async () => {
  for (const [subClass] of KINDS) {
    const { displayName, number } = (await every(subClass))[0];
    const search = displayName.slice(0, 5);
    for (const one of found(await client.queryAsync(token, subClass, { displayName })))
      assert.equal(one.displayName, displayName);
    for (const one of found(await client.queryAsync(token, subClass, { number }))) assert.equal(one.number, number);
    for (const one of found(await client.queryAsync(token, subClass, { search })))
      assert.ok(one.displayName.includes(search), one.displayName);
  }
});

await check("lists what all its filters together leave, in the scope of the whole organization too", async () => {
  const all = await client.queryAsync(token, "Project", {
    iTwinAccountId: project.iTwinAccountId,
    queryScope: "all",
    status: "Active",
    type: project.type,
    resultMode: "representation",
  });
  assert.ok(found(all).some((one) => one.id === project.id));
  const children = await client.queryAsync(token, undefined, { parentId: project.id });
  for (const one of found(children)) assert.equal(one.subClass, "WorkPackage");
  const inactive = await client.queryAsync(token, "Project", { includeInactive: true, resultMode: "representation" });
  assert.ok(found(inactive).some((one) => one.status === "Inactive"));
});

await check("is told that a subclass is invalid", async () => {
  refusedAs(await client.queryAsync(token, "Invalid"), 422, "InvalidiTwinsRequest", "InvalidValue", "subClass");
});

await check("gets an iTwin, by default and in full", async () => {
  const answer = await client.getAsync(token, project.id);
  assert.equal(answer.status, 200);
  assert.deepEqual(
    [answer.data.id, answer.data.class, answer.data.subClass],
    [project.id, "Endeavor", "Project"],
  );
  detailed([(await client.getAsync(token, project.id, "representation")).data]);
});

await check("a new iTwin has no image, and null says so", async () => {
  await withITwin(async (id) => {
    const { data } = await client.getAsync(token, id, "representation");
    assert.deepEqual([data.image, data.imageName], [null, null]);
    detailed([data]);
  });
});

await check("is told that an unknown iTwin is not found, whether it gets or deletes it", async () => {
  refusedAs(await client.getAsync(token, NOBODY), 404, "iTwinNotFound");
  refusedAs(await client.deleteiTwin(token, NOBODY), 404, "iTwinNotFound");
});

await check("gets the account of an iTwin, in full too, and it is the one that the iTwin names", async () => {
  const whole = (await client.getAsync(token, project.id, "representation")).data;
  const account = await client.getAccountAsync(token, project.id);
  assert.equal(account.status, 200);
  assert.deepEqual(
    [account.data.id, account.data.class, account.data.subClass],
    [whole.iTwinAccountId, "Account", "Account"],
  );
  const { data } = await client.getAccountAsync(token, project.id, "representation");
  assert.equal(typeof data.createdDateTime, "string");
  assert.equal(typeof data.createdBy, "string");
});

await check("gets the primary account", async () => {
  const { status, data } = await client.getPrimaryAccountAsync(token);
  assert.deepEqual([status, data.subClass], [200, "Account"]);
  assert.ok(data.id);
});

await check("lists recent iTwins of a subclass, in full and in the scope of the whole organization too", async () => {
  const recent = await client.queryRecentsAsync(token, "Project", { resultMode: "representation" });
  detailed(found(recent));
  for (const one of found(await client.queryRecentsAsync(token, "Asset"))) assert.equal(one.class, "Thing");
  found(await client.queryRecentsAsync(token, "Asset", { queryScope: "all" }));
});

await check("lists favorite iTwins of a subclass, in full and in the scope of the whole organization too", async () => {
  const favorites = found(await client.queryFavoritesAsync(token, "Project"));
  for (const one of favorites) assert.deepEqual([one.class, one.subClass], ["Endeavor", "Project"]);
  detailed(found(await client.queryFavoritesAsync(token, "Project", { resultMode: "representation" })));
  found(await client.queryFavoritesAsync(token, "Project", { queryScope: "all", top: 1 }));
});

await check("creates, updates and deletes an iTwin", async () => {
  const wanted = bridge();
  const made = await client.createiTwin(token, wanted);
  assert.equal(made.status, 201);
  for (const name of Object.keys(wanted)) assert.equal(made.data[name], wanted[name], name);
  const updated = await client.updateiTwin(token, made.data.id, { displayName: "UPDATED" });
  assert.deepEqual([updated.status, updated.data.displayName], [200, "UPDATED"]);
  assert.equal(updated.data.number, wanted.number);
  const deleted = await client.deleteiTwin(token, made.data.id);
  assert.deepEqual([deleted.status, deleted.data, deleted.error], [204, undefined, undefined]);
});

await check("is told that a number is taken, and which property that is", async () => {
  const wanted = bridge();
  const made = await client.createiTwin(token, wanted);
  const again = await client.createiTwin(token, wanted);
  await client.deleteiTwin(token, made.data.id);
  refusedAs(again, 409, "iTwinExists", "InvalidValue", "number");
});

await check("is told that the class is missing", async () => {
  const { class: _, ...wanted } = bridge();
  const answer = await client.createiTwin(token, wanted);
  refusedAs(answer, 422, "InvalidiTwinsRequest", "MissingRequiredProperty", "class");
});

await check("creates a repository, finds it by class and subclass, and deletes it", async () => {
  await withITwin(async (id) => {
    const made = await client.createRepository(token, id, wms);
    assert.equal(made.status, 201, JSON.stringify(made));
    for (const name of Object.keys(wms)) assert.equal(made.data[name], wms[name]);
    const all = found(await client.queryRepositoriesAsync(token, id));
    assert.equal(all.length, 2, "the curated content comes with every iTwin");
    assert.deepEqual([all[1].class, all[1].subClass, all[1].uri], [wms.class, wms.subClass, wms.uri]);
    const chosen = await client.queryRepositoriesAsync(token, id, { class: wms.class, subClass: wms.subClass });
    assert.deepEqual(found(chosen).map((one) => one.id), [made.data.id]);
    const none = await client.queryRepositoriesAsync(token, id, { class: "Storage" });
    assert.deepEqual([none.status, none.data], [200, []]);
    const gone = await client.deleteRepository(token, id, made.data.id);
    assert.deepEqual([gone.status, gone.data], [204, undefined]);
  });
});

await check("sees the repositories that iModels and others generate", async () => {
  const all = found(await client.queryRepositoriesAsync(token, project.id));
  assert.ok(all.some((one) => one.class === "iModels"));
  const chosen = found(await client.queryRepositoriesAsync(token, project.id, { class: "iModels" }));
  for (const one of chosen) assert.equal(one.class, "iModels");
});

await check("is told what is wrong with a repository or a question for repositories", async () => {
  refusedAs(await client.queryRepositoriesAsync(token, NOBODY), 404, "iTwinNotFound");
  refusedAs(await client.createRepository(token, NOBODY, wms), 404, "iTwinNotFound");
  const odd = await client.queryRepositoriesAsync(token, project.id, { class: "Invalid" });
  refusedAs(odd, 422, "InvalidiTwinsRequest", "InvalidValue", "class");
  const mismatch = { class: "Storage", subClass: "UrlTemplate" };
  assert.equal((await client.queryRepositoriesAsync(token, project.id, mismatch)).status, 422);
  await withITwin(async (id) => {
    assert.equal((await client.createRepository(token, id, wms)).status, 201);
    refusedAs(await client.createRepository(token, id, wms), 409, "iTwinRepositoryExists");
    const bare = await client.createRepository(token, id, { ...wms, uri: "" });
    refusedAs(bare, 422, "InvalidiTwinsRequest", "MissingRequiredProperty", "uri");
    refusedAs(await client.deleteRepository(token, id, NOBODY), 404, "iTwinRepositoryNotFound");
  });
});

await check("is told why nobody is let in without a token, with another scheme or with a bad token", async () => {
  for (const [header, code] of [
    ["", "HeaderNotFound"],
    ["invalid-token", "InvalidAuthorizationScheme"],
    ["Bearer invalid-token", "Unauthorized"],
  ])
    refusedAs(await client.getPrimaryAccountAsync(header), 401, code);
  const { error } = await client.getPrimaryAccountAsync("invalid-token");
  assert.equal(error.message, "Authorization scheme 'invalid-token' is not valid.");
});

await check("another organization's iTwins are not found", async () => {
  const answer = await client.getAsync(`Bearer ${given.tokens.luca}`, project.id);
  refusedAs(answer, 404, "iTwinNotFound");
});

await check("every method of the client has been called", async () => {
  const folder = path.dirname(require.resolve("@itwin/itwins-client"));
  const all = methods(path.join(folder, "iTwinsClient.d.ts"));
  assert.ok(all.length >= 12, `only ${all} are declared`);
  assert.deepEqual(all.filter((name) => !called.has(name)), []);
});
