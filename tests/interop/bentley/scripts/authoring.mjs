// @itwin/imodels-client-authoring with @itwin/object-storage-azure, and the management client: work on one iModel.
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { assert, as, check, given, operations, refused, require, until, watched } from "./harness.mjs";
import * as entities from "./entities.mjs";

const management = require("@itwin/imodels-client-management");
const authoring = require("@itwin/imodels-client-authoring");
const { AzureClientStorage, BlockBlobClientWrapperFactory } = require("@itwin/object-storage-azure");
const { ITwinsAccessClient } = require("@itwin/itwins-client");
const { LockLevel, NamedVersionState, OrderByOperator, SPECIAL_VALUES_ME, UserOrderByProperty, toArray } = management;

const api = { baseUrl: `${given.url}/imodels` };
const storage = new AzureClientStorage(new BlockBlobClientWrapperFactory());
const calledAuthoring = new Set();
const calledManagement = new Set();
const author = watched(new authoring.IModelsClient({ api, cloudStorage: storage }), calledAuthoring);
const manager = watched(new management.IModelsClient({ api }), calledManagement);
const BOTH = [author, manager];
const authorization = as("anna");
const NOBODY = "22acf21e-0575-4faf-849b-bcd538718269";

const itwins = new ITwinsAccessClient(`${given.url}/itwins`);
const token = `Bearer ${given.tokens.anna}`;
const [iTwin] = (await itwins.queryAsync(token, "Project", { number: "NL-A12-0042" })).data;
const iModelProperties = { iTwinId: iTwin.id, name: `Authoring ${crypto.randomUUID()}`, description: "d" };
const { id: iModelId } = await author.iModels.createEmpty({ authorization, iModelProperties });
const on = { authorization, iModelId };

const files = Array.from({ length: 10 }, (_, at) => {
  const index = at + 1;
  const filePath = path.join(given.folder, `changeset-${index}.cs`);
  writeFileSync(filePath, `changeset ${index} `.repeat(100 + index));
  return { id: index.toString(16).padStart(40, "c"), filePath, fileSize: statSync(filePath).size };
});
const briefcases = [];
const groups = [];
const pushed = [];
const versions = [];

await check("acquires briefcases, with a device and without", async () => {
  for (const deviceName of [undefined, "Workstation 7", undefined]) {
    const briefcaseProperties = deviceName ? { deviceName } : undefined;
    const briefcase = await author.briefcases.acquire({ ...on, briefcaseProperties });
    await entities.briefcase(briefcase, { deviceName });
    briefcases.push(briefcase);
  }
  assert.deepEqual([...new Set(briefcases.map((one) => one.briefcaseId))].length, 3);
});

await check("gets and lists briefcases, minimal and in full, those of oneself too", async () => {
  const [, device] = briefcases;
  for (const client of BOTH) {
    const one = await client.briefcases.getSingle({ ...on, briefcaseId: device.briefcaseId });
    await entities.briefcase(one, { deviceName: "Workstation 7" });
    const lean = await toArray(client.briefcases.getMinimalList({ ...on, urlParams: { $top: 2 } }));
    assert.deepEqual(lean.map((found) => Object.keys(found).sort()), lean.map(() => ["displayName", "id"]));
    assert.equal(lean.length, 3);
    const mine = { ownerId: SPECIAL_VALUES_ME, $orderBy: { property: "acquiredDateTime", operator: "desc" } };
    const full = await toArray(client.briefcases.getRepresentationList({ ...on, urlParams: mine }));
    assert.deepEqual(full.map((found) => found.id), briefcases.map((found) => found.id).reverse());
    await entities.briefcase(full[2], {});
    const others = client.briefcases.getRepresentationList({ ...on, authorization: as("tomasz"), urlParams: mine });
    assert.deepEqual(await toArray(others), []);
  }
});

await check("creates changeset groups", async () => {
  for (const description of ["Some group", "Another group"]) {
    const group = await author.changesetGroups.create({ ...on, changesetGroupProperties: { description } });
    await entities.group(group, { description, state: "inProgress" });
    groups.push(group);
  }
});

await check("pushes changesets, in a group, with information about a synchronization, uploading their files", async () => {
  for (const [at, file] of files.entries()) {
    const wanted = { id: file.id, filePath: file.filePath, briefcaseId: briefcases[0].briefcaseId };
    if (at > 0) Object.assign(wanted, { parentId: files[at - 1].id, description: `change ${at + 1}` });
    if (at < 2) wanted.groupId = groups[0].id;
    if (at === 0) wanted.synchronizationInfo = { taskId: NOBODY };
    if (at === 1) wanted.synchronizationInfo = { taskId: NOBODY, changedFiles: ["foo.bim"] };
    if (at === 2) wanted.containingChanges = 3;
    const changeset = await author.changesets.create({ ...on, changesetProperties: wanted });
    const has = { namedVersion: false, checkpoint: false, isGetResponse: false };
    pushed.push({ ...wanted, fileSize: file.fileSize });
    await entities.changeset(changeset, pushed[at], has);
    assert.equal(changeset.index, at + 1);
  }
});

await check("completes a changeset group, which it gets and lists", async () => {
  const changesetGroupProperties = { state: "completed" };
  const [{ id: changesetGroupId }] = groups;
  const done = await author.changesetGroups.update({ ...on, changesetGroupId, changesetGroupProperties });
  await entities.group(done, { description: "Some group", state: "completed" });
  for (const client of BOTH) {
    const one = await client.changesetGroups.getSingle({ ...on, changesetGroupId });
    await entities.group(one, { description: "Some group", state: "completed" });
    const all = await toArray(client.changesetGroups.getList({ ...on, urlParams: { $top: 1 } }));
    assert.deepEqual(all.map((found) => found.state).sort(), ["completed", "inProgress"]);
  }
});

await check("attaches data to changesets, gets and lists it", async () => {
  for (const changesetIndex of [1, 2]) {
    const data = { author: "interop", parts: [changesetIndex, null], text: "Ø" };
    const changesetExtendedDataProperties = { data };
    const made = await author.changesetExtendedData.create({ ...on, changesetIndex, changesetExtendedDataProperties });
    const expected = { changesetId: files[changesetIndex - 1].id, changesetIndex, data };
    assert.deepEqual(made, expected);
    for (const client of BOTH) {
      assert.deepEqual(await client.changesetExtendedData.getSingle({ ...on, changesetIndex }), expected);
      const byId = { changesetId: expected.changesetId };
      assert.deepEqual(await client.changesetExtendedData.getSingle({ ...on, ...byId }), expected);
    }
  }
  for (const client of BOTH) {
    const all = await toArray(client.changesetExtendedData.getList({ ...on, urlParams: { $top: 1 } }));
    assert.deepEqual(all.map((one) => one.changesetIndex), [1, 2]);
  }
});

await check("names versions on changesets and on the baseline, and reads the changeset back from each", async () => {
  for (const changesetIndex of [5, 10, 0]) {
    const changesetId = changesetIndex ? files[changesetIndex - 1].id : undefined;
    const wanted = { name: `Milestone ${changesetIndex}`, description: changesetIndex ? undefined : "as received", changesetId };
    const client = changesetIndex ? author : manager;
    const version = await client.namedVersions.create({ ...on, namedVersionProperties: wanted });
    await entities.namedVersion(version, { ...wanted, changesetIndex });
    versions.push(version);
  }
});

await check("gets and lists named versions, filtered, ordered and page by page", async () => {
  for (const client of BOTH) {
    const one = await client.namedVersions.getSingle({ ...on, namedVersionId: versions[0].id });
    const wanted = { name: "Milestone 5", changesetId: files[4].id, changesetIndex: 5 };
    await entities.namedVersion(one, wanted);
    const list = (urlParams) => toArray(client.namedVersions.getRepresentationList({ ...on, urlParams }));
    assert.equal((await list({ $top: 2 })).length, 3);
    assert.deepEqual((await list({ name: "Milestone 5" })).map((found) => found.id), [versions[0].id]);
    assert.deepEqual((await list({ $search: "Stone 10" })).map((found) => found.id), [versions[1].id]);
    assert.deepEqual(await list({ name: "Non existent name" }), []);
    assert.deepEqual(await list({ $search: "Non existent" }), []);
    const created = await list({ $orderBy: { property: "createdDateTime", operator: OrderByOperator.Descending } });
    assert.deepEqual(created.map((found) => found.id), versions.map((found) => found.id).reverse());
    for (const [operator, expected] of [[undefined, [0, 5, 10]], [OrderByOperator.Descending, [10, 5, 0]]]) {
      const $orderBy = { property: "changesetIndex", operator };
      const lean = await toArray(client.namedVersions.getMinimalList({ ...on, urlParams: { $orderBy } }));
      assert.deepEqual(lean.map((found) => found.changesetIndex), expected);
      assert.deepEqual(Object.keys(lean[0]).sort(), ["changesetId", "changesetIndex", "displayName", "id"]);
    }
  }
});

await check("renames, describes, hides and shows a named version", async () => {
  const change = (client, namedVersionProperties) =>
    client.namedVersions.update({ ...on, namedVersionId: versions[0].id, namedVersionProperties });
  let expected = { name: "Renamed", changesetId: files[4].id, changesetIndex: 5 };
  await entities.namedVersion(await change(author, { name: "Renamed" }), expected);
  expected = { ...expected, description: "why" };
  await entities.namedVersion(await change(manager, { description: "why" }), expected);
  await entities.namedVersion(await change(author, { state: NamedVersionState.Hidden }), { ...expected, state: "hidden" });
  for (const state of [NamedVersionState.Hidden, NamedVersionState.Visible])
    for (const one of await toArray(manager.namedVersions.getRepresentationList({ ...on, urlParams: { state } })))
      assert.equal(one.state, state);
  await entities.namedVersion(await change(manager, { state: NamedVersionState.Visible }), expected);
});

await check("waits for the checkpoint of a named version, and finds it by changeset, by index and as the latest", async () => {
  const [{ id: namedVersionId }] = versions;
  const expected = { changesetId: files[4].id, changesetIndex: 5, state: "successful" };
  await until(async () => (await author.checkpoints.getSingle({ ...on, namedVersionId })).state === "successful");
  await until(async () => (await author.checkpoints.getSingle({ ...on, changesetIndex: 10 })).state === "successful");
  for (const client of BOTH) {
    for (const of of [{ namedVersionId }, { changesetId: files[4].id }, { changesetIndex: 5 }])
      entities.checkpoint(await client.checkpoints.getSingle({ ...on, ...of }), expected);
    const latest = await client.checkpoints.getSingle(on);
    entities.checkpoint(latest, { changesetId: files[9].id, changesetIndex: 10, state: "successful" });
    const again = await client.checkpoints.updateNamedVersionCheckpoint({ ...on, namedVersionId });
    assert.equal(again.state, "successful", "what is done is not done again");
  }
});

await check("gets a changeset by id and by index, with its version, its checkpoint and its link to download", async () => {
  const has = { namedVersion: true, checkpoint: true, isGetResponse: true };
  for (const client of BOTH)
    for (const of of [{ changesetId: files[4].id }, { changesetIndex: 5 }]) {
      const changeset = await client.changesets.getSingle({ ...on, ...of });
      await entities.changeset(changeset, pushed[4], has);
      assert.equal((await changeset.getNamedVersion()).id, versions[0].id);
      assert.equal((await changeset.getCurrentOrPrecedingCheckpoint()).changesetIndex, 5);
    }
});

await check("lists changesets, minimal and in full, a range of them, in both orders and page by page", async () => {
  for (const client of BOTH) {
    const lean = await toArray(client.changesets.getMinimalList({ ...on, urlParams: { $top: 3 } }));
    assert.deepEqual(lean.map((one) => one.id), files.map((one) => one.id));
    for (const [at, one] of lean.entries()) await entities.minimalChangeset(one, pushed[at]);
    const range = { afterIndex: 5, lastIndex: 9, $orderBy: { property: "index", operator: "desc" } };
    const full = await toArray(client.changesets.getRepresentationList({ ...on, urlParams: range }));
    assert.deepEqual(full.map((one) => one.index), [9, 8, 7, 6]);
    const has = { namedVersion: false, checkpoint: true, isGetResponse: true };
    await entities.changeset(full[0], pushed[8], has);
    assert.equal((await full[0].getCurrentOrPrecedingCheckpoint()).changesetIndex, 5);
  }
});

await check("downloads one changeset by id and by index, byte for byte", async () => {
  for (const [name, of] of [["by-id", { changesetId: files[0].id }], ["by-index", { changesetIndex: 1 }]]) {
    const targetDirectoryPath = path.join(given.folder, name);
    const changeset = await author.changesets.downloadSingle({ ...on, ...of, targetDirectoryPath });
    assert.ok(readFileSync(changeset.filePath).equals(readFileSync(files[0].filePath)));
    assert.equal(changeset._links.download.href.includes(changeset.id), true);
  }
});

await check("downloads all changesets and a range of them, reporting its progress", async () => {
  const told = [];
  const progressCallback = (done, total) => told.push([done, total]);
  const targetDirectoryPath = path.join(given.folder, "all");
  const all = await author.changesets.downloadList({ ...on, targetDirectoryPath, progressCallback });
  assert.deepEqual(all.map((one) => one.index).sort((a, b) => a - b), files.map((_, at) => at + 1));
  for (const one of all) assert.ok(readFileSync(one.filePath).equals(readFileSync(files[one.index - 1].filePath)));
  assert.equal(told.at(-1)[0], told.at(-1)[1]);
  const range = path.join(given.folder, "range");
  const urlParams = { afterIndex: 5, lastIndex: 10 };
  const some = await author.changesets.downloadList({ ...on, targetDirectoryPath: range, urlParams });
  assert.deepEqual(some.map((one) => one.index).sort((a, b) => a - b), [6, 7, 8, 9, 10]);
  assert.equal(readdirSync(range).length, 5);
});

await check("downloads again by a fresh link when the first one failed", async () => {
  const urls = [];
  const flaky = Object.create(storage, {
    download: {
      value: (input) => {
        urls.push(input.url);
        if (urls.length === 1) throw new Error("Download failed.");
        return storage.download(input);
      },
    },
  });
  const client = new authoring.IModelsClient({ api, cloudStorage: flaky });
  const targetDirectoryPath = path.join(given.folder, "again");
  const changeset = await client.changesets.downloadSingle({ ...on, changesetIndex: 2, targetDirectoryPath });
  assert.ok(readFileSync(changeset.filePath).equals(readFileSync(files[1].filePath)));
  assert.equal(urls.length, 2);
  assert.notEqual(urls[0], urls[1], "the second link is a new one");
  for (const url of urls) assert.ok(url.includes(changeset.id));
});

await check("takes locks, which it lists by briefcase and by level", async () => {
  const [{ briefcaseId }] = briefcases;
  const lockedObjects = [
    { lockLevel: LockLevel.Shared, objectIds: ["0xaa", "0x1"] },
    { lockLevel: LockLevel.Exclusive, objectIds: ["0xbb"] },
  ];
  entities.locked(await author.locks.update({ ...on, briefcaseId, lockedObjects }), { briefcaseId, lockedObjects });
  for (const client of BOTH) {
    const list = (urlParams) => toArray(client.locks.getList({ ...on, urlParams }));
    entities.locked((await list())[0], { briefcaseId, lockedObjects });
    entities.locked((await list({ briefcaseId }))[0], { briefcaseId, lockedObjects });
    assert.deepEqual(await list({ briefcaseId: 500 }), []);
    for (const [at, lockLevel] of [LockLevel.Shared, LockLevel.Exclusive].entries())
      entities.locked((await list({ lockLevel }))[0], { briefcaseId, lockedObjects: [lockedObjects[at]] });
    const pages = await list({ $top: 2 });
    assert.equal(pages.flatMap((lock) => lock.lockedObjects.flatMap((one) => one.objectIds)).length, 3);
  }
});

await check("is told which locks of which briefcase conflict", async () => {
  const lockedObjects = [{ lockLevel: LockLevel.Exclusive, objectIds: ["0xaa"] }];
  const [{ briefcaseId: holder }, { briefcaseId }] = briefcases;
  const thrown = await refused(
    author.locks.update({ ...on, briefcaseId, lockedObjects }),
    "ConflictWithAnotherUser",
    "Lock(s) is owned by another Briefcase. Conflicting locks:\n" +
      `1. Object id: 0xaa, lock level: shared, briefcase ids: ${holder}\n`,
  );
  assert.deepEqual(thrown.conflictingLocks, [{ objectId: "0xaa", lockLevel: "shared", briefcaseIds: [holder] }]);
});

await check("is told which objects have changed in a newer changeset", async () => {
  const [{ briefcaseId: first }, { briefcaseId: second }] = briefcases;
  const lock = (briefcaseId, changeset, lockLevel) =>
    author.locks.update({ ...on, briefcaseId, changesetId: files[changeset].id, lockedObjects: [{ lockLevel, objectIds: ["0x5"] }] });
  await lock(first, 5, LockLevel.Exclusive);
  const released = await lock(first, 5, LockLevel.None);
  assert.ok(!released.lockedObjects.some((one) => one.objectIds.includes("0x5")));
  const thrown = await refused(
    lock(second, 4, LockLevel.Exclusive),
    "NewerChangesExist",
    "One or more objects have been locked in a newer Changeset. Object ids: 0x5",
  );
  assert.deepEqual(thrown.objectIds, ["0x5"]);
  const after = await toArray(manager.locks.getReleasedLockList({ ...on, urlParams: { afterChangesetIndex: 5 } }));
  assert.deepEqual(after, [{ lockLevel: "exclusive", objectIds: ["0x5"] }]);
  assert.deepEqual(await toArray(manager.locks.getReleasedLockList({ ...on, urlParams: { afterChangesetIndex: 6 } })), []);
});

await check("releases the locks of a briefcase, chunk by chunk", async () => {
  const [, , { briefcaseId }] = briefcases;
  const lockedObjects = [{ lockLevel: LockLevel.Exclusive, objectIds: ["0xdd", "0xee", "0xff"] }];
  await author.locks.update({ ...on, briefcaseId, lockedObjects });
  assert.equal((await manager.locks.releaseLocksChunk({ ...on, briefcaseId })).isLastChunk, true);
  assert.deepEqual(await toArray(manager.locks.getList({ ...on, urlParams: { briefcaseId } })), []);
});

await check("is told what of a lock is not there", async () => {
  const [{ briefcaseId }] = briefcases;
  const update = (more, lockLevel = LockLevel.Shared) =>
    author.locks.update({ ...on, briefcaseId, lockedObjects: [{ lockLevel, objectIds: ["0x99"] }], ...more });
  await refused(update({}, LockLevel.None), "LockNotFound", "Requested Lock(s) is not available.");
  await refused(update({ briefcaseId: 0 }), "BriefcaseNotFound", "Requested Briefcase is not available.");
  await refused(update({ changesetId: "a".repeat(40) }), "ChangesetNotFound", "Requested Changeset is not available.");
  await refused(update({ iModelId: "invalid iModel id", briefcaseId: 0 }), "iModelNotFound", "Requested iModel is not available.");
});

await check("lists who has worked here, in the order asked for, with what each has done", async () => {
  for (const client of BOTH) {
    const lean = await toArray(client.users.getMinimalList({ ...on, urlParams: { $top: 1 } }));
    const anna = lean.find((one) => one.displayName.startsWith("anna"));
    const user = await client.users.getSingle({ ...on, userId: anna.id });
    entities.user(user);
    const { statistics } = user;
    assert.deepEqual(
      [statistics.pushedChangesetsCount, statistics.createdVersionsCount, statistics.briefcasesCount],
      [10, 3, 3],
    );
    assert.equal(statistics.applications.some((one) => one.ownsLocks && one.ownsExclusiveRootElementLock === false), true);
    assert.equal(typeof statistics.lastChangesetPushDate, "string");
  }
  const [interchange] = await toArray(
    manager.iModels.getMinimalList({ authorization, urlParams: { iTwinId: iTwin.id, name: "A12 Interchange - Roads" } }),
  );
  for (const client of BOTH)
    for (const property of [UserOrderByProperty.GivenName, UserOrderByProperty.Surname])
      for (const [operator, sign] of [[OrderByOperator.Ascending, 1], [OrderByOperator.Descending, -1]]) {
        const urlParams = { $orderBy: [{ property, operator }, { property: UserOrderByProperty.Surname }] };
        const users = await toArray(client.users.getRepresentationList({ authorization, iModelId: interchange.id, urlParams }));
        assert.ok(users.length >= 2);
        const names = users.map((one) => one[property]);
        assert.deepEqual(names, [...names].sort((a, b) => sign * a.localeCompare(b)));
      }
});

await check("is told that a changeset exists, and that its parent is not the last one", async () => {
  const [{ briefcaseId }] = briefcases;
  const push = (id, parentId) =>
    author.changesets.create({ ...on, changesetProperties: { id, parentId, briefcaseId, filePath: files[0].filePath } });
  await refused(push(files[9].id, files[8].id), "ChangesetExists");
  const thrown = await push("d".repeat(40), files[3].id).then(() => undefined, (error) => error);
  assert.ok(["ConflictWithAnotherUser", "InvalidiModelsRequest", "NewerChangesExist"].includes(thrown?.code), thrown?.message);
});

await check("is told that a version is on that changeset already", async () => {
  const namedVersionProperties = { name: "Twice", changesetId: files[4].id };
  await refused(author.namedVersions.create({ ...on, namedVersionProperties }), "NamedVersionOnChangesetExists");
});

await check("does not know the code for a name that is taken, but hands over the platform's words", async () => {
  const namedVersionProperties = { name: "Renamed", changesetId: files[2].id };
  const thrown = await refused(author.namedVersions.create({ ...on, namedVersionProperties }), "Unrecognized");
  assert.match(thrown.message, /NamedVersionExists/);
});

await check("is told what does not exist in an iModel", async () => {
  for (const client of BOTH) {
    for (const of of [{ changesetId: "invalidId" }, { changesetIndex: 1000 }]) {
      await refused(client.checkpoints.getSingle({ ...on, ...of }), "ChangesetNotFound", "Requested Changeset is not available.");
      await refused(client.changesets.getSingle({ ...on, ...of }), "ChangesetNotFound");
    }
    const unknown = { namedVersionId: "invalidId" };
    const words = "Requested Named Version is not available.";
    await refused(client.checkpoints.getSingle({ ...on, ...unknown }), "NamedVersionNotFound", words);
    await refused(client.namedVersions.getSingle({ ...on, ...unknown }), "NamedVersionNotFound", words);
    for (const of of [{ changesetId: files[4].id }, { changesetIndex: 5 }, unknown, {}]) {
      const elsewhere = { authorization, iModelId: "invalidIModelId", ...of };
      await refused(client.checkpoints.getSingle(elsewhere), "iModelNotFound", "Requested iModel is not available.");
    }
    await refused(client.briefcases.getSingle({ ...on, briefcaseId: 4711 }), "BriefcaseNotFound");
    await refused(client.users.getSingle({ ...on, userId: NOBODY }), "UserNotFound");
    await refused(
      client.changesetGroups.getSingle({ ...on, changesetGroupId: NOBODY }),
      "ChangesetGroupNotFound",
      "Requested Changeset Group is not available.",
    );
    await refused(
      client.changesetExtendedData.getSingle({ ...on, changesetIndex: 7 }),
      "ChangesetExtendedDataNotFound",
      "Requested Changeset Extended Data is not available.",
    );
  }
});

await check("releases its briefcases, which leaves none", async () => {
  for (const [at, { briefcaseId }] of briefcases.entries()) await BOTH[at % 2].briefcases.release({ ...on, briefcaseId });
  assert.deepEqual(await toArray(author.briefcases.getMinimalList(on)), []);
  assert.deepEqual(await toArray(author.locks.getList(on)), [], "its locks went with it");
  await author.iModels.delete(on);
});

await check("every operation of both clients on what is in an iModel has been called", async () => {
  const elsewhere = ["iModels", "favoriteIModels", "recentIModels", "thumbnails", "userPermissions", "operations", "baselineFiles"];
  const inside = (name) => !elsewhere.includes(name.split(".")[0]);
  for (const [packageName, called, least] of [
    ["@itwin/imodels-client-management", calledManagement, 24],
    ["@itwin/imodels-client-authoring", calledAuthoring, 10],
  ]) {
    const all = operations(packageName).filter(inside);
    assert.ok(all.length >= least, `${packageName} declares only ${all.length}: ${all}`);
    assert.deepEqual(all.filter((name) => !called.has(name)), []);
  }
});
