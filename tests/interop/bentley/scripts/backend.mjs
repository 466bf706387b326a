// @itwin/core-backend with @itwin/imodels-access-backend: iTwin.js opens the sandbox's files and works on an iModel.
import { statSync } from "node:fs";
import path from "node:path";
import { assert, as, check, given, require, until } from "./harness.mjs";

const { BackendIModelsAccess } = require("@itwin/imodels-access-backend");
const { IModelsClient } = require("@itwin/imodels-client-authoring");
const { AzureClientStorage, BlockBlobClientWrapperFactory } = require("@itwin/object-storage-azure");
const { toArray } = require("@itwin/imodels-client-management");
const { IModel, IModelVersion } = require("@itwin/core-common");
const {
  BriefcaseDb,
  BriefcaseManager,
  ChannelControl,
  CheckpointManager,
  IModelHost,
  SnapshotDb,
  SpatialCategory,
  Subject,
  V2CheckpointManager,
} = require("@itwin/core-backend");

const client = new IModelsClient({
  api: { baseUrl: `${given.url}/imodels` },
  cloudStorage: new AzureClientStorage(new BlockBlobClientWrapperFactory()),
});
const hubAccess = new BackendIModelsAccess(client);
const [ANNA, TOMASZ] = ["anna", "tomasz"].map((name) => `Bearer ${given.tokens[name]}`);
const authorization = as("anna");
const authorizationClient = { getAccessToken: async () => ANNA };
await IModelHost.startup({ hubAccess, authorizationClient, cacheDir: path.join(given.folder, "backend") });
// iTwin.js reads the blocks of a checkpoint from a host name that it makes from the storage account, always Azure's
// own. The same file is behind the download link, as in the versions of iTwin.js before blocks.
V2CheckpointManager.performDownload = async ({ request }) => (await hubAccess.downloadV1Checkpoint(request)).id;

const itwins = await get("/itwins?subClass=Project&$top=50", "iTwins");
const iTwin = itwins.find((one) => one.number === "NL-A12-0042");
const iTwinId = iTwin.id;
const seeded = (await toArray(client.iModels.getMinimalList({ authorization, urlParams: { iTwinId } }))).at(0);
const opened = [];
let iModelId;
let first;
let second;

async function get(route, key) {
  const answer = await fetch(`${given.url}${route}`, { headers: { authorization: ANNA } });
  assert.equal(answer.status, 200, route);
  return (await answer.json())[key];
}

async function saved(link, name) {
  const file = path.join(given.folder, name);
  await client.cloudStorage.download({ url: link.href, transferType: "local", localPath: file, storageType: "azure" });
  return file;
}

function inspect(file, expected) {
  const db = SnapshotDb.openFile(file);
  try {
    assert.deepEqual({ iModelId: db.iModelId, iTwinId: db.iTwinId }, { iModelId: expected.iModelId, iTwinId });
    assert.deepEqual(db.changeset, expected.changeset);
    assert.equal(db.elements.getElement(IModel.rootSubjectId).classFullName, "BisCore:Subject");
  } finally {
    db.close();
  }
}

async function briefcase(id, options = {}) {
  const at = await BriefcaseManager.downloadBriefcase({ iTwinId, iModelId: id, ...options });
  const db = await BriefcaseDb.open({ fileName: at.fileName });
  db.channels.addAllowedChannel(ChannelControl.sharedChannelName);
  opened.push(db);
  return db;
}

async function clone(id) {
  const other = itwins.find((one) => one.id !== iTwinId).id;
  const answer = await fetch(`${given.url}/imodels/${id}/clone`, {
    method: "POST",
    headers: { authorization: ANNA, "content-type": "application/json" },
    body: JSON.stringify({ iTwinId: other, name: `Clone ${crypto.randomUUID()}` }),
  });
  assert.equal(answer.status, 202);
  const cloned = answer.headers.get("location").split("/").at(-1);
  await until(async () => (await get(`/imodels/${cloned}`, "iModel")).state === "initialized");
  const db = await briefcase(cloned, { iTwinId: other });
  assert.deepEqual([db.iModelId, db.iTwinId], [cloned, other]);
  return db;
}

async function push(db, name) {
  await db.locks.acquireLocks({ shared: [IModel.rootSubjectId, IModel.dictionaryId] });
  SpatialCategory.insert(db, IModel.dictionaryId, name, { color: 0xff });
  db.elements.insertElement(Subject.create(db, IModel.rootSubjectId, name).toJSON());
  db.saveChanges(name);
  await db.pushChanges({ description: name });
}

function subjects(db) {
  const names = [];
  db.withPreparedStatement("SELECT CodeValue FROM bis.Subject WHERE ECInstanceId <> 0x1 ORDER BY 1", (statement) => {
    for (const row of statement) names.push(row.codeValue);
  });
  return names;
}

await check("opens the baseline of a seeded iModel", async () => {
  const baseline = await client.baselineFiles.getSingle({ authorization, iModelId: seeded.id });
  const file = await saved(baseline._links.download, "seeded.bim");
  assert.equal(statSync(file).size, baseline.fileSize);
  inspect(file, { iModelId: seeded.id, changeset: { id: "", index: 0 } });
});

await check("opens every checkpoint of a seeded iModel as of its changeset", async () => {
  const versions = await toArray(client.namedVersions.getRepresentationList({ authorization, iModelId: seeded.id }));
  const found = [];
  for (const { id } of versions) {
    const one = await get(`/imodels/${seeded.id}/namedversions/${id}/checkpoint`, "checkpoint");
    if (one.state !== "successful") continue;
    const file = await saved(one._links.download, `seeded-${one.changesetIndex}.bim`);
    inspect(file, { iModelId: seeded.id, changeset: { id: one.changesetId ?? "", index: one.changesetIndex } });
    found.push(one.changesetIndex);
  }
  assert.ok(Math.max(...found) > 0, `checkpoints: ${found}`);
});

await check("creates an empty iModel, downloads it and opens it", async () => {
  const iModelProperties = { iTwinId, name: `Backend ${crypto.randomUUID()}` };
  iModelId = (await client.iModels.createEmpty({ authorization, iModelProperties })).id;
  first = await briefcase(iModelId);
  assert.deepEqual([first.iModelId, first.iTwinId], [iModelId, iTwinId]);
  assert.ok(first.briefcaseId >= 2);
  assert.deepEqual(subjects(first), []);
});

await check("pushes two changesets, and a second person's briefcase pulls", async () => {
  await push(first, "Piers");
  second = await briefcase(iModelId, { accessToken: TOMASZ });
  assert.deepEqual(subjects(second), ["Piers"]);
  await push(first, "Decks");
  assert.equal(first.changeset.index, 2);
  await second.pullChanges({ accessToken: TOMASZ });
  assert.deepEqual(second.changeset, first.changeset);
  assert.deepEqual(subjects(second), ["Decks", "Piers"]);
});

await check("names a version, and opens its checkpoint with all that was pushed", async () => {
  const namedVersionProperties = { name: "Structure", changesetId: first.changeset.id };
  const version = await client.namedVersions.create({ authorization, iModelId, namedVersionProperties });
  const checkpoint = await until(async () => {
    const one = await get(`/imodels/${iModelId}/namedversions/${version.id}/checkpoint`, "checkpoint");
    return one.state === "successful" && one;
  });
  assert.equal(checkpoint.changesetId, first.changeset.id);
  const changeset = await hubAccess.getChangesetFromVersion({ iModelId, version: IModelVersion.named("Structure") });
  const localFile = path.join(given.folder, "checkpoint.bim");
  await CheckpointManager.downloadCheckpoint({ localFile, checkpoint: { iTwinId, iModelId, changeset } });
  inspect(localFile, { iModelId, changeset: first.changeset });
  const db = SnapshotDb.openFile(localFile);
  assert.deepEqual(subjects(db), ["Decks", "Piers"]);
  db.close();
});

await check("opens a clone in another iTwin with the changesets of its source", async () => {
  assert.deepEqual(subjects(await clone(iModelId)), ["Decks", "Piers"]);
});

await check("creates an iModel from a file of its own, pushes, and opens a clone in another iTwin", async () => {
  const version0 = path.join(given.folder, "version0.bim");
  SnapshotDb.createEmpty(version0, { rootSubject: { name: "Own" } }).close();
  const iModelName = `Own ${crypto.randomUUID()}`;
  const own = await hubAccess.createNewIModel({ iTwinId, iModelName, version0 });
  const db = await briefcase(own);
  await push(db, "Abutments");
  assert.equal(db.changeset.index, 1);
  assert.equal(db.elements.getElement(IModel.rootSubjectId).code.value, "Own");
  assert.deepEqual(subjects(await clone(own)), ["Abutments"]);
});

for (const db of opened) db.close();
await IModelHost.shutdown();
