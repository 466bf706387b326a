// What the makers' own integration suites demand of each entity: nothing left out, null where there is nothing.
import { assert } from "./harness.mjs";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

export function optional(actual, expected, what) {
  // `undefined` in the request must come back as null, never be missing.
  assert.deepEqual(actual, expected ?? null, what);
}

export function link(actual, exists, what) {
  if (!exists) return assert.equal(actual, null, `${what} must be null`);
  return assert.match(actual.href, /^https?:\/\//, what);
}

export function user(actual) {
  assert.match(actual.id, UUID);
  for (const name of ["displayName", "givenName", "surname", "email"]) assert.ok(actual[name], name);
  link(actual._links.self, true, "_links.self");
}

export async function iModel(actual, expected) {
  assert.match(actual.id, UUID);
  assert.equal(actual.displayName, actual.name);
  assert.equal(actual.name, expected.name);
  assert.equal(actual.iTwinId, expected.iTwinId);
  optional(actual.description, expected.description, "description");
  optional(actual.extent, expected.extent, "extent");
  assert.equal(actual.containersEnabled, expected.containersEnabled ?? 0);
  assert.equal(actual.state, expected.state ?? "initialized");
  assert.match(actual.createdDateTime, MOMENT);
  assert.equal(typeof actual.dataCenterLocation, "string");
  assert.ok("lastChangesetPushDateTime" in actual, "lastChangesetPushDateTime is left out");
  for (const name of ["creator", "changesets", "namedVersions"]) link(actual._links[name], true, name);
  user(await actual.getCreator());
}

export async function briefcase(actual, expected) {
  assert.equal(actual.id, String(actual.briefcaseId));
  assert.equal(actual.displayName, actual.id);
  assert.ok(actual.briefcaseId >= 2);
  assert.match(actual.ownerId, UUID);
  assert.match(actual.acquiredDateTime, MOMENT);
  assert.ok(actual.fileSize > 0);
  optional(actual.deviceName, expected.deviceName, "deviceName");
  application(actual.application);
  link(actual._links.owner, true, "owner");
  user(await actual.getOwner());
  const found = await actual.getCheckpoint();
  assert.equal(found.state, "successful");
}

export function application(actual) {
  assert.ok(actual?.id && actual.name, "application");
}

export async function minimalChangeset(actual, expected) {
  assert.match(actual.id, /^[0-9a-f]{40}$/);
  assert.equal(actual.displayName, String(actual.index));
  assert.ok(actual.index > 0);
  assert.equal(actual.parentId, expected.parentId ?? "");
  optional(actual.description, expected.description, "description");
  optional(actual.groupId, expected.groupId, "groupId");
  assert.match(actual.creatorId, UUID);
  assert.match(actual.pushDateTime, MOMENT);
  assert.equal(actual.state, "fileUploaded");
  assert.equal(actual.containingChanges, expected.containingChanges ?? 0);
  assert.equal(actual.fileSize, expected.fileSize);
  assert.equal(actual.briefcaseId, expected.briefcaseId);
  link(actual._links.self, true, "self");
  link(actual._links.creator, true, "creator");
  user(await actual.getCreator());
}

export async function changeset(actual, expected, has) {
  await minimalChangeset(actual, expected);
  application(actual.application);
  if (has.isGetResponse && expected.synchronizationInfo) {
    const { taskId, changedFiles } = expected.synchronizationInfo;
    assert.deepEqual(actual.synchronizationInfo, { taskId, changedFiles: changedFiles ?? null });
  } else assert.equal(actual.synchronizationInfo, null);
  link(actual._links.namedVersion, has.namedVersion, "namedVersion");
  link(actual._links.currentOrPrecedingCheckpoint, has.checkpoint, "currentOrPrecedingCheckpoint");
  link(actual._links.download, has.isGetResponse, "download");
  assert.equal((await actual.getNamedVersion()) !== undefined, has.namedVersion);
  assert.equal((await actual.getCurrentOrPrecedingCheckpoint()) !== undefined, has.checkpoint);
}

export async function namedVersion(actual, expected) {
  assert.match(actual.id, UUID);
  assert.equal(actual.displayName, actual.name);
  assert.equal(actual.name, expected.name);
  optional(actual.description, expected.description, "description");
  optional(actual.changesetId, expected.changesetId, "changesetId");
  assert.equal(actual.changesetIndex, expected.changesetIndex);
  assert.equal(actual.state, expected.state ?? "visible");
  assert.match(actual.createdDateTime, MOMENT);
  application(actual.application);
  link(actual._links.creator, true, "creator");
  link(actual._links.changeset, expected.changesetId !== undefined, "changeset");
  user(await actual.getCreator());
  assert.equal((await actual.getChangeset())?.id, expected.changesetId);
}

export function checkpoint(actual, expected) {
  assert.equal(actual.changesetIndex, expected.changesetIndex);
  optional(actual.changesetId, expected.changesetId, "changesetId");
  assert.equal(actual.state, expected.state);
  const done = expected.state === "successful";
  assert.equal(actual.size > 0, done);
  link(actual._links.download, done, "download");
  if (!done) return assert.equal(actual.directoryAccessInfo, null);
  for (const name of ["baseUrl", "baseDirectory", "storageType"]) assert.ok(actual.directoryAccessInfo[name], name);
  assert.ok(actual.directoryAccessInfo.azure?.sasToken, "azure.sasToken");
  assert.ok(actual.dbName, "dbName");
  for (const name of ["account", "sas", "container", "dbName"]) assert.ok(actual.containerAccessInfo[name], name);
  return undefined;
}

export async function group(actual, expected) {
  assert.match(actual.id, UUID);
  assert.equal(actual.description, expected.description);
  assert.equal(actual.state, expected.state);
  assert.match(actual.creatorId, UUID);
  assert.match(actual.createdDateTime, MOMENT);
  link(actual._links.creator, true, "creator");
  user(await actual.getCreator());
}

export function locked(actual, expected) {
  const plain = (lock) =>
    lock.lockedObjects.map((one) => [one.lockLevel, [...one.objectIds].sort()]).sort((a, b) => (a[0] < b[0] ? -1 : 1));
  assert.equal(actual.briefcaseId, expected.briefcaseId);
  assert.deepEqual(plain(actual), plain(expected));
}
