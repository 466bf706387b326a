// Makes an empty iModel and compresses it with xz: `node make.mjs empty_imodel.bim` leaves `empty_imodel.bim.xz`.
//
// The same versions of iTwin.js make the same bytes: what depends on the moment or on chance is set to fixed values.
// `src/itwin_mcp/sandbox/storage/imodel_file.py` gives each copy the ids of the iModel that it is served for.
import { execFileSync } from "node:child_process";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import path from "node:path";
import { BriefcaseIdValue } from "@itwin/core-common";
import { IModelDb, IModelHost, SnapshotDb, SQLiteDb } from "@itwin/core-backend";
import { OpenMode } from "@itwin/core-bentley";

const IMODEL = "00000000-0000-4000-8000-000000000001";
const ITWIN = "00000000-0000-4000-8000-000000000002";
const JULIAN_DAY = 2461041.5; // 2026-01-01

const file = path.resolve(process.argv[2]);
rmSync(file, { force: true });
await IModelHost.startup();
SnapshotDb.createEmpty(file, { rootSubject: { name: "iModel" } }).close();

// A platform's baseline is unassigned and belongs to an iTwin and an iModel, which a snapshot does not.
const baseline = IModelDb.openDgnDb({ path: file }, OpenMode.ReadWrite);
baseline.setITwinId(ITWIN);
baseline.setIModelId(IMODEL);
baseline.saveChanges();
baseline.deleteAllTxns();
baseline.resetBriefcaseId(BriefcaseIdValue.Unassigned);
baseline.saveChanges();
baseline.closeFile();

const sqlite = new SQLiteDb();
sqlite.openDb(file, { openMode: OpenMode.ReadWrite, rawSQLite: true });
const run = (sql) => sqlite.withPreparedSqliteStatement(sql, (statement) => statement.step());
run("UPDATE be_Prop SET StrData = '2026-01-01T00:00:00.000Z' WHERE Name = 'CreationDate'");
run(`UPDATE bis_Element SET LastMod = ${JULIAN_DAY}, FederationGuid = CAST(printf('itwin-mcp %6d', Id) AS BLOB)`);
sqlite.saveChanges();
sqlite.closeDb();
await IModelHost.shutdown();

// The read and write versions of the file format: 1 is a rollback journal, 2 is WAL, which no copy in memory can use.
const header = openSync(file, "r+");
writeSync(header, Buffer.from([1, 1]), 0, 2, 18);
closeSync(header);
execFileSync("xz", ["--force", "--check=crc32", "-9e", file], { stdio: "inherit" });
