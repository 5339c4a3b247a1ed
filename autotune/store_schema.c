/* store_schema.c — the SQL of the store, its migrations, and the journal rule.
 *
 * SQLite keeps the comments inside CREATE statements: `.schema` shows them to
 * whoever queries the file by hand.
 */
#include "autotune/store_internal.h"
#include <string.h>
#include <sys/vfs.h>

static const char version_1[] =
  "CREATE TABLE environment(\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,  -- hash of the row, in hexadecimal; so in all tables\n"
  "  target TEXT NOT NULL,      -- fingerprint, as in task\n"
  "  cpu TEXT NOT NULL, isa TEXT NOT NULL, caches TEXT NOT NULL,\n"
  "  kernel TEXT NOT NULL,      -- of the operating system\n"
  "  library TEXT NOT NULL,     -- versions of Tenon and its code generator\n"
  "  probes TEXT NOT NULL       -- measured figures of the machine\n"
  ") STRICT;\n"
  "CREATE TABLE workload(\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,  -- hash of kernel only\n"
  "  kernel TEXT NOT NULL,      -- canonical text, unscheduled\n"
  "  class TEXT NOT NULL,       -- gemm, conv2d, ...\n"
  "  name TEXT NOT NULL,        -- for people: gemm:f32:128x768x768\n"
  "  stamp INTEGER NOT NULL,    -- when named, microseconds since 1970\n"
  "  sum TEXT NOT NULL          -- hash of the whole row\n"
  ") STRICT;\n"
  "CREATE TABLE task(            -- what has one winner\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,\n"
  "  workload INTEGER NOT NULL REFERENCES workload,\n"
  "  target TEXT NOT NULL,      -- fingerprint: ISA, caches, driver\n"
  "  policy TEXT NOT NULL       -- how it is timed\n"
  ") STRICT;\n"
  "CREATE INDEX task_kernel ON task(workload, target);\n"
  "CREATE TABLE config(\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,\n"
  "  schedule TEXT NOT NULL     -- canonical text; empty: unscheduled\n"
  ") STRICT;\n"
  "CREATE TABLE run(             -- one call of the tuner\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,  -- random\n"
  "  environment INTEGER NOT NULL REFERENCES environment,\n"
  "  seed INTEGER NOT NULL,\n"
  "  budget_s REAL,             -- null: none\n"
  "  budget_trials INTEGER NOT NULL, -- 0: none\n"
  "  started INTEGER NOT NULL,  -- microseconds since 1970\n"
  "  ended INTEGER NOT NULL,    -- 0: still at it, or killed\n"
  "  host TEXT NOT NULL,\n"
  "  label TEXT NOT NULL,\n"
  "  stamp INTEGER NOT NULL,\n"
  "  sum TEXT NOT NULL\n"
  ") STRICT;\n"
  "CREATE TABLE trial(\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,\n"
  "  run INTEGER NOT NULL REFERENCES run,\n"
  "  seq INTEGER NOT NULL,      -- within the run\n"
  "  task INTEGER NOT NULL REFERENCES task,\n"
  "  config INTEGER NOT NULL REFERENCES config,\n"
  "  codegen TEXT NOT NULL,     -- version of the code generator\n"
  "  status TEXT NOT NULL CHECK(status IN\n"
  "    ('ok','wrong','crash','hang','oom','refused','compile_error','noisy')),\n"
  "  stage INTEGER NOT NULL,    -- how far it came in the race\n"
  "  origin TEXT NOT NULL,      -- default, model, mutate, ...\n"
  "  reason TEXT NOT NULL,      -- of a failure\n"
  "  n INTEGER NOT NULL,        -- number of samples\n"
  "  min_ns REAL, median_ns REAL, mad_ns REAL, -- of one call; null: not timed\n"
  "  cost_ns REAL,              -- what ranks: the median, dearer for few samples\n"
  "  predicted_ns REAL,         -- by the cost model\n"
  "  compile_ms REAL,\n"
  "  time INTEGER NOT NULL,     -- microseconds since 1970\n"
  "  samples TEXT NOT NULL      -- JSON array of nanoseconds, in the order taken\n"
  ") STRICT;\n"
  "CREATE INDEX trial_rank ON trial(task, status, codegen, cost_ns, predicted_ns, uid);\n"
  "CREATE INDEX trial_config ON trial(task, config, status);\n"
  "CREATE TABLE pin(             -- a person's choice for a task\n"
  "  id INTEGER PRIMARY KEY,\n"
  "  uid TEXT NOT NULL UNIQUE,  -- hash of the task\n"
  "  task INTEGER NOT NULL UNIQUE REFERENCES task,\n"
  "  config INTEGER NOT NULL REFERENCES config,\n"
  "  active INTEGER NOT NULL,   -- 0: taken back\n"
  "  note TEXT NOT NULL,\n"
  "  stamp INTEGER NOT NULL,\n"
  "  sum TEXT NOT NULL\n"
  ") STRICT;\n"
  "CREATE TABLE object(          -- emitted kernels; only a cache\n"
  "  key TEXT PRIMARY KEY,\n"
  "  sum TEXT NOT NULL,         -- hash of key and bytes\n"
  "  time INTEGER NOT NULL,\n"
  "  bytes BLOB NOT NULL\n"
  ") STRICT;\n"
  /* A config counts by its best-founded ok trial and not at all once barred; the
   * look-up (at_select_best) says the same with its parameters filled in. */
  "CREATE VIEW contender AS     -- one row per task, code generator and config that may win\n"
  "  SELECT * FROM trial t WHERE status = 'ok'\n"
  "  AND NOT EXISTS(SELECT 1 FROM trial s WHERE s.task = t.task AND s.config = t.config\n"
  "    AND s.status = 'ok' AND s.codegen = t.codegen AND (s.n, s.time, s.uid) > (t.n, t.time, t.uid))\n"
  "  AND NOT EXISTS(SELECT 1 FROM task k JOIN task kb ON kb.workload = k.workload AND kb.target = k.target\n"
  "    JOIN trial b ON b.task = kb.id AND b.config = t.config\n"
  "    WHERE k.id = t.task AND b.codegen = t.codegen AND b.status IN " AT_BAD ");\n"
  "CREATE VIEW winner AS\n"
  "  SELECT w.name, w.class, k.target, k.policy, t.codegen, t.median_ns, t.n, c.schedule,\n"
  "    t.id AS trial, t.task, t.config\n"
  "  FROM (SELECT *, row_number() OVER (PARTITION BY task, codegen\n"
  "      ORDER BY cost_ns, predicted_ns, uid) AS place FROM contender) t\n"
  "  JOIN task k ON k.id = t.task JOIN workload w ON w.id = k.workload JOIN config c ON c.id = t.config\n"
  "  WHERE place = 1;\n";

/* To change the schema: append a step here, raise AT_SCHEMA_VERSION, and leave the
 * older steps as they are. Rows keep their uid, so a new column must not enter the
 * hash of rows that do not use it. */
const char *const at_schema_steps[AT_SCHEMA_VERSION] = {version_1};

static int pragma_int(sqlite3 *h, const char *sql, int64_t *out) {
  sqlite3_stmt *st;
  int rc = sqlite3_prepare_v2(h, sql, -1, &st, NULL);
  if (rc) return rc;
  rc = sqlite3_step(st);
  if (rc == SQLITE_ROW) *out = sqlite3_column_int64(st, 0);
  int end = sqlite3_finalize(st);
  return rc == SQLITE_ROW ? SQLITE_OK : end ? end : SQLITE_ERROR;
}

int at_migrate(sqlite3 *h, const char *const *steps, int n) {
  /* Read again under the lock: another process may have done it meanwhile. */
  int rc = sqlite3_exec(h, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  if (rc) return rc;
  int64_t version = 0;
  rc = pragma_int(h, "PRAGMA user_version", &version);
  if (!rc && (version < 0 || version > n)) rc = SQLITE_SCHEMA;
  for (int i = (int)version; !rc && i < n; i++) rc = sqlite3_exec(h, steps[i], NULL, NULL, NULL);
  if (!rc && version < n) {
    char sql[96];
    snprintf(sql, sizeof sql, "PRAGMA application_id=%d; PRAGMA user_version=%d", AT_APPLICATION_ID, n);
    rc = sqlite3_exec(h, sql, NULL, NULL, NULL);
  }
  if (!rc) rc = sqlite3_exec(h, "COMMIT", NULL, NULL, NULL);
  if (rc && !sqlite3_get_autocommit(h)) sqlite3_exec(h, "ROLLBACK", NULL, NULL, NULL);
  return rc;
}

/* The WAL-reset fault (a writer and a checkpoint that reset the log at the same time
 * can corrupt the file) is in 3.7.0 to 3.51.2; fixed in 3.51.3 and, by backport, from
 * 3.50.7 and 3.44.6 on (sqlite.org, release history). */
bool at_sqlite_wal_is_sound(int v) {
  if (v >= 3051003) return true;
  if (v >= 3050007 && v < 3051000) return true;
  return v >= 3044006 && v < 3045000;
}

/* WAL shares memory between processes, so it needs a file system of this machine.
 * Only known ones count; the others get the journal that works everywhere. */
bool at_is_local_filesystem(const char *path) {
  static const unsigned long local[] = {
      0xef53 /* ext2-4 */, 0x58465342 /* xfs */, 0x9123683e /* btrfs */, 0xf2f52010 /* f2fs */,
      0x2fc12fc1 /* zfs */, 0xca451a4e /* bcachefs */, 0x01021994 /* tmpfs */};
  struct statfs s;
  if (statfs(path, &s)) return false;
  for (int i = 0; i < IR_COUNT(local); i++)
    if (((unsigned long)s.f_type & 0xffffffffu) == local[i]) return true;
  return false;
}
