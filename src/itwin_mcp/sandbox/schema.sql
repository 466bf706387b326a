-- The whole state of the emulated platform. Statements are split at the semicolon, so no comment may hold one.
-- Dates are TEXT in the platform's own spelling (seven fractional digits and Z), which sorts by time.
-- `seq` is the order of creation, and the default order of lists. JSON columns are named *_json.

CREATE TABLE signing_keys (kid TEXT PRIMARY KEY, private_pem TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE jobs (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, due_at TEXT NOT NULL);
CREATE INDEX jobs_by_due ON jobs (due_at, seq);

-- People, applications, sign-in

CREATE TABLE users (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, email TEXT NOT NULL UNIQUE COLLATE NOCASE,
  given_name TEXT NOT NULL, surname TEXT NOT NULL, account_id TEXT NOT NULL,
  is_admin INTEGER NOT NULL DEFAULT 0, client_id TEXT UNIQUE
);
CREATE TABLE oauth_clients (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, secret_hash TEXT,
  redirect_uris_json TEXT NOT NULL DEFAULT '[]', created_at TEXT NOT NULL
);
CREATE TABLE oauth_codes (
  code_hash TEXT PRIMARY KEY, client_id TEXT NOT NULL, user_id TEXT NOT NULL, redirect_uri TEXT NOT NULL, scope TEXT NOT NULL,
  code_challenge TEXT, code_challenge_method TEXT, nonce TEXT, expires_at TEXT NOT NULL, used_at TEXT
);
CREATE TABLE oauth_refresh_tokens (
  token_hash TEXT PRIMARY KEY, family TEXT NOT NULL, client_id TEXT NOT NULL, user_id TEXT NOT NULL, scope TEXT NOT NULL,
  expires_at TEXT NOT NULL, used_at TEXT, revoked_at TEXT
);
CREATE INDEX oauth_refresh_tokens_by_family ON oauth_refresh_tokens (family);
CREATE TABLE revoked_tokens (jti TEXT PRIMARY KEY, revoked_at TEXT NOT NULL);

-- iTwins: an Account is an iTwin of class Account, whose account_id is its own id

CREATE TABLE itwins (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, class TEXT NOT NULL, sub_class TEXT NOT NULL, type TEXT,
  number TEXT NOT NULL, display_name TEXT NOT NULL, geographic_location TEXT, latitude REAL, longitude REAL,
  iana_time_zone TEXT, data_center_location TEXT NOT NULL, status TEXT NOT NULL, parent_id TEXT, account_id TEXT NOT NULL,
  created_at TEXT NOT NULL, created_by TEXT, modified_at TEXT NOT NULL, modified_by TEXT,
  UNIQUE (account_id, sub_class, number)
);
CREATE INDEX itwins_by_parent ON itwins (parent_id);
CREATE TABLE roles (id TEXT PRIMARY KEY, itwin_id TEXT, display_name TEXT NOT NULL, description TEXT NOT NULL DEFAULT '');
CREATE TABLE role_permissions (
  role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE, permission TEXT NOT NULL, PRIMARY KEY (role_id, permission)
) WITHOUT ROWID;
CREATE TABLE itwin_members (
  itwin_id TEXT NOT NULL REFERENCES itwins (id) ON DELETE CASCADE, user_id TEXT NOT NULL,
  role_id TEXT NOT NULL REFERENCES roles (id) ON DELETE CASCADE, PRIMARY KEY (itwin_id, user_id, role_id)
) WITHOUT ROWID;
CREATE INDEX itwin_members_by_user ON itwin_members (user_id, itwin_id);
CREATE TABLE itwin_favorites (
  seq INTEGER PRIMARY KEY, user_id TEXT NOT NULL, itwin_id TEXT NOT NULL REFERENCES itwins (id) ON DELETE CASCADE,
  UNIQUE (user_id, itwin_id)
);
CREATE TABLE itwin_recents (
  seq INTEGER PRIMARY KEY, user_id TEXT NOT NULL, itwin_id TEXT NOT NULL REFERENCES itwins (id) ON DELETE CASCADE,
  UNIQUE (user_id, itwin_id)
);
CREATE TABLE itwin_images (
  itwin_id TEXT PRIMARY KEY REFERENCES itwins (id) ON DELETE CASCADE, id TEXT NOT NULL,
  small_name TEXT NOT NULL, small_blob TEXT NOT NULL, large_name TEXT NOT NULL, large_blob TEXT NOT NULL
);
CREATE TABLE repositories (
  seq INTEGER PRIMARY KEY, itwin_id TEXT NOT NULL REFERENCES itwins (id) ON DELETE CASCADE, id TEXT NOT NULL,
  class TEXT NOT NULL, sub_class TEXT, uri TEXT NOT NULL, display_name TEXT, authentication_json TEXT, options_json TEXT,
  UNIQUE (itwin_id, id)
);
CREATE TABLE repository_resources (
  seq INTEGER PRIMARY KEY, itwin_id TEXT NOT NULL REFERENCES itwins (id) ON DELETE CASCADE, repository_id TEXT NOT NULL,
  id TEXT NOT NULL, class TEXT NOT NULL, sub_class TEXT, type TEXT, display_name TEXT NOT NULL, properties_json TEXT,
  UNIQUE (itwin_id, repository_id, id)
);
CREATE TABLE tilesets (subject_id TEXT PRIMARY KEY, blob_id TEXT NOT NULL);
CREATE TABLE exports (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, request_json TEXT NOT NULL, status TEXT NOT NULL,
  blob_id TEXT, created_at TEXT NOT NULL, started_at TEXT, completed_at TEXT
);
CREATE INDEX exports_by_user ON exports (user_id, created_at);

-- Files: what storage links point at

CREATE TABLE blobs (
  id TEXT PRIMARY KEY, content_id TEXT UNIQUE, size INTEGER, md5 BLOB, content_type TEXT NOT NULL, modified_at TEXT NOT NULL,
  recipe TEXT
);
CREATE TABLE blob_chunks (
  seq INTEGER PRIMARY KEY, content_id TEXT NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, content BLOB NOT NULL,
  UNIQUE (content_id, start)
);
CREATE TABLE blob_blocks (
  blob_id TEXT NOT NULL, block_id TEXT NOT NULL, content_id TEXT NOT NULL, size INTEGER NOT NULL,
  PRIMARY KEY (blob_id, block_id)
) WITHOUT ROWID;

-- iModels

CREATE TABLE imodels (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, itwin_id TEXT NOT NULL REFERENCES itwins (id) ON DELETE CASCADE,
  name TEXT NOT NULL, description TEXT, state TEXT NOT NULL, created_at TEXT NOT NULL, creator_id TEXT NOT NULL,
  extent_json TEXT, containers_enabled INTEGER NOT NULL DEFAULT 0, data_center_location TEXT NOT NULL,
  is_secured INTEGER NOT NULL DEFAULT 0, coordinate_system_json TEXT, has_federation_guids INTEGER NOT NULL DEFAULT 1,
  UNIQUE (itwin_id, name)
);
CREATE TABLE create_operations (
  imodel_id TEXT PRIMARY KEY REFERENCES imodels (id) ON DELETE CASCADE, kind TEXT NOT NULL, state TEXT NOT NULL,
  source_imodel_id TEXT, source_changeset_id TEXT, source_index INTEGER, relationship_id TEXT,
  preserve_history INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE baseline_files (
  imodel_id TEXT PRIMARY KEY REFERENCES imodels (id) ON DELETE CASCADE, id TEXT NOT NULL, file_size INTEGER NOT NULL,
  state TEXT NOT NULL, creator_id TEXT NOT NULL, blob_id TEXT
);
CREATE TABLE thumbnails (
  imodel_id TEXT PRIMARY KEY REFERENCES imodels (id) ON DELETE CASCADE, small BLOB NOT NULL, large BLOB NOT NULL
);
CREATE TABLE imodel_favorites (
  seq INTEGER PRIMARY KEY, user_id TEXT NOT NULL, imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE,
  UNIQUE (user_id, imodel_id)
);
CREATE TABLE imodel_recents (
  seq INTEGER PRIMARY KEY, user_id TEXT NOT NULL, imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE,
  UNIQUE (user_id, imodel_id)
);
CREATE TABLE imodel_users (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, user_id TEXT NOT NULL, last_access_at TEXT NOT NULL,
  PRIMARY KEY (imodel_id, user_id)
) WITHOUT ROWID;
CREATE TABLE imodel_user_permissions (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, user_id TEXT NOT NULL, permission TEXT NOT NULL,
  PRIMARY KEY (imodel_id, user_id, permission)
) WITHOUT ROWID;
CREATE TABLE imodel_role_permissions (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, role_id TEXT NOT NULL, permission TEXT NOT NULL,
  PRIMARY KEY (imodel_id, role_id, permission)
) WITHOUT ROWID;
CREATE TABLE shares (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE,
  creator_id TEXT NOT NULL, name TEXT NOT NULL, share_key TEXT NOT NULL UNIQUE, permission TEXT NOT NULL,
  created_at TEXT NOT NULL, expires_at TEXT NOT NULL
);

-- The timeline of one iModel. Changeset index 0 is the baseline and has no row

CREATE TABLE changesets (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, idx INTEGER NOT NULL, id TEXT NOT NULL,
  description TEXT, parent_id TEXT NOT NULL, creator_id TEXT NOT NULL, pushed_at TEXT NOT NULL, state TEXT NOT NULL,
  containing_changes INTEGER NOT NULL DEFAULT 0, file_size INTEGER NOT NULL, briefcase_id INTEGER NOT NULL,
  group_id TEXT, client_id TEXT, synchronization_json TEXT, blob_id TEXT,
  PRIMARY KEY (imodel_id, idx), UNIQUE (imodel_id, id)
) WITHOUT ROWID;
CREATE TABLE changeset_extended_data (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, changeset_index INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (imodel_id, changeset_index)
) WITHOUT ROWID;
CREATE TABLE changeset_groups (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE,
  description TEXT NOT NULL, state TEXT NOT NULL, creator_id TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE INDEX changeset_groups_by_imodel ON changeset_groups (imodel_id, seq);
CREATE TABLE named_versions (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE,
  changeset_index INTEGER NOT NULL, changeset_id TEXT, name TEXT NOT NULL, description TEXT, state TEXT NOT NULL,
  created_at TEXT NOT NULL, creator_id TEXT NOT NULL, client_id TEXT,
  UNIQUE (imodel_id, name), UNIQUE (imodel_id, changeset_index)
);
CREATE TABLE checkpoints (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, changeset_index INTEGER NOT NULL, changeset_id TEXT,
  state TEXT NOT NULL, size INTEGER NOT NULL DEFAULT 0, db_name TEXT NOT NULL, blob_id TEXT,
  PRIMARY KEY (imodel_id, changeset_index)
) WITHOUT ROWID;

-- Briefcases and locks

CREATE TABLE briefcases (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, briefcase_id INTEGER NOT NULL, owner_id TEXT NOT NULL,
  acquired_at TEXT NOT NULL, file_size INTEGER NOT NULL, device_name TEXT, client_id TEXT,
  released_at TEXT, PRIMARY KEY (imodel_id, briefcase_id)
) WITHOUT ROWID;
CREATE INDEX briefcases_by_owner ON briefcases (owner_id, acquired_at);
CREATE TABLE locks (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, object_id TEXT NOT NULL, briefcase_id INTEGER NOT NULL,
  level TEXT NOT NULL, PRIMARY KEY (imodel_id, object_id, briefcase_id)
) WITHOUT ROWID;
CREATE INDEX locks_by_briefcase ON locks (imodel_id, briefcase_id, level, object_id);
CREATE TABLE released_locks (
  imodel_id TEXT NOT NULL REFERENCES imodels (id) ON DELETE CASCADE, object_id TEXT NOT NULL, level TEXT NOT NULL,
  changeset_index INTEGER NOT NULL, PRIMARY KEY (imodel_id, object_id, level)
) WITHOUT ROWID;
CREATE INDEX released_locks_by_index ON released_locks (imodel_id, changeset_index)
