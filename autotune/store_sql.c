/* store_sql.c — one SQLite database: open, wait, prepare, transact. */
#include "autotune/store_internal.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* How long a look-up and a batch wait for others. A batch takes milliseconds, so a
 * minute means that somebody was stopped while holding the lock. */
enum { READ_PATIENCE_MS = 2000, WRITE_PATIENCE_MS = 60000 };

int64_t at_now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t monotonic_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* SQLite asks what to do about a lock, for the `count`th time. Sleeps differ between
 * processes and calls, so that eight writers do not poll in step. */
static int wait_for_lock(void *arg, int count) {
  at_db *db = arg;
  int64_t now = monotonic_us();
  if (count == 0) db->busy_since = now;
  if (now - db->busy_since > 1000 * (int64_t)db->patience_ms) return 0;
  uint64_t mix = ((uint64_t)now ^ (uint64_t)getpid() << 32) * 0x9e3779b97f4a7c15u;
  long longest = count < 4 ? 1000 : count < 20 ? 5000 : 20000; /* microseconds */
  struct timespec pause = {0, (long)(mix >> 33) % (longest * 1000) + 50000};
  nanosleep(&pause, NULL);
  return 1;
}

const char *at_code_text(int rc) {
  switch (rc & 0xff) {
    case SQLITE_FULL: return "disk is full";
    case SQLITE_READONLY: return "is read-only";
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return "another process keeps it busy";
    case SQLITE_CORRUPT: return "is damaged";
    case SQLITE_NOTADB: return "is not a database, or damaged";
    case SQLITE_CANTOPEN: return "cannot be opened";
    case SQLITE_PERM: return "access is denied";
    case SQLITE_IOERR: return "input/output error";
    case SQLITE_NOMEM: return "out of memory";
    case SQLITE_TOOBIG: return "a text is too long";
    default: return sqlite3_errstr(rc);
  }
}

int64_t at_db_int(at_db *db, const char *sql, int64_t none) {
  sqlite3_stmt *st;
  if (sqlite3_prepare_v2(db->h, sql, -1, &st, NULL)) return none;
  int64_t v = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : none;
  return sqlite3_finalize(st) ? none : v;
}

/* ---- statements ---- */

#define TRIAL_COLUMNS                                                                          \
  "t.id,t.uid,r.uid,t.seq,k.uid,c.uid,t.codegen,t.status,t.stage,t.origin,t.reason,t.n,"       \
  "t.min_ns,t.median_ns,t.mad_ns,t.cost_ns,t.predicted_ns,t.compile_ms,t.time,t.samples"
#define OK_TRIALS /* of the task ?1, by rank; see the view `contender` */                      \
  "SELECT " TRIAL_COLUMNS ",c.schedule FROM task k CROSS JOIN trial t ON t.task=k.id"          \
  " JOIN config c ON c.id=t.config JOIN run r ON r.id=t.run"                                   \
  " WHERE k.uid=?1 AND t.status='ok'"
#define NOT_SUPERSEDED                                                                         \
  " AND NOT EXISTS(SELECT 1 FROM trial s WHERE s.task=t.task AND s.config=t.config"            \
  "  AND s.status='ok' AND s.codegen=t.codegen AND (s.n,s.time,s.uid)>(t.n,t.time,t.uid))"
/* Barred by what the generator of the trial, or the one asked for, made of it. */
#define NOT_BARRED                                                                             \
  " AND NOT EXISTS(SELECT 1 FROM task kb CROSS JOIN trial b ON b.task=kb.id AND b.config=t.config" \
  "  WHERE kb.workload=k.workload AND kb.target=k.target"                                      \
  "  AND b.codegen IN(t.codegen,?2) AND b.status IN" AT_BAD ")"
#define BY_RANK " ORDER BY t.cost_ns,t.predicted_ns,t.uid"

static const char *const statements[AT_S_COUNT] = {
    [AT_S_BEST] = OK_TRIALS " AND t.codegen=?2" NOT_SUPERSEDED NOT_BARRED BY_RANK,
    [AT_S_BEST_STALE] = OK_TRIALS " AND t.codegen<>?2" NOT_SUPERSEDED NOT_BARRED BY_RANK,
    [AT_S_BARRED] = "SELECT 1 FROM workload w JOIN task k ON k.workload=w.id AND k.target=?2"
                    " JOIN config c ON c.uid=?3 JOIN trial b ON b.task=k.id AND b.config=c.id"
                    " WHERE w.uid=?1 AND b.codegen IN(?4,?5) AND b.status IN" AT_BAD,
    [AT_S_PIN] = "SELECT p.id,p.uid,k.uid,c.uid,p.active,p.note,p.stamp,p.sum,c.schedule"
                 " FROM task k JOIN pin p ON p.task=k.id JOIN config c ON c.id=p.config WHERE k.uid=?1",
    [AT_S_PINNED_TRIAL] = OK_TRIALS " AND c.uid=?3 ORDER BY t.codegen=?2 DESC,t.n DESC,t.time DESC,t.uid",
    [AT_S_HAS] = "SELECT 1 FROM trial WHERE uid=?1",
    [AT_S_BEGIN_READ] = "BEGIN",
    [AT_S_VERSION] = "PRAGMA data_version",
    [AT_S_BEGIN] = "BEGIN IMMEDIATE",
    [AT_S_COMMIT] = "COMMIT",
    [AT_S_ROLLBACK] = "ROLLBACK",
    [AT_S_OBJECT_PUT] = "INSERT OR REPLACE INTO object(key,sum,time,bytes) VALUES(?1,?2,?3,?4)",
    [AT_S_WORKLOAD] = "SELECT class,name FROM workload WHERE uid=?1",
    [AT_S_TASK] = "SELECT w.kernel,w.class,w.name,k.target,k.policy FROM task k JOIN workload w ON w.id=k.workload"
                  " WHERE k.uid=?1",
    [AT_S_PIN_STAMP] = "SELECT stamp,active FROM pin WHERE uid=?1",
    [AT_S_OBJECT_GET] = "SELECT sum,bytes FROM object WHERE key=?1",
};

const char *at_select_trial(void) {
  return "SELECT " TRIAL_COLUMNS ",w.kernel,w.class,w.name,k.target,k.policy,c.schedule FROM trial t"
         " LEFT JOIN run r ON r.id=t.run LEFT JOIN task k ON k.id=t.task LEFT JOIN config c ON c.id=t.config"
         " LEFT JOIN workload w ON w.id=k.workload";
}

sqlite3_stmt *at_db_st(at_db *db, at_st which, int *rc) {
  sqlite3_stmt **slot = &db->st[which];
  *rc = SQLITE_OK;
  if (!db->h)
    *rc = SQLITE_CANTOPEN;
  else if (!*slot)
    *rc = sqlite3_prepare_v3(db->h, statements[which], -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
  else
    sqlite3_reset(*slot);
  return *rc ? NULL : *slot;
}

void at_st_text(sqlite3_stmt *st, int i, const char *s) { sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC); }

int at_st_run(sqlite3_stmt *st) {
  int rc = sqlite3_step(st);
  int end = sqlite3_reset(st);
  return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : end ? end : rc;
}

int at_db_exec(at_db *db, at_st which) {
  int rc;
  sqlite3_stmt *st = at_db_st(db, which, &rc);
  return st ? at_st_run(st) : rc;
}

int at_db_write(at_db *db, int (*fn)(at_db *db, void *arg), void *arg) {
  db->patience_ms = db->write_patience_ms;
  int rc = at_db_exec(db, AT_S_BEGIN);
  if (!rc) {
    rc = fn(db, arg);
    /* A commit that waited in vain for readers leaves the transaction open; the
     * handler has waited long enough by then. */
    if (!rc) rc = at_db_exec(db, AT_S_COMMIT);
    if (rc && !sqlite3_get_autocommit(db->h)) at_db_exec(db, AT_S_ROLLBACK);
  }
  db->patience_ms = READ_PATIENCE_MS;
  return rc;
}

/* ---- opening ---- */

/* What the answer of a one-row pragma says; "" on error. */
static void pragma_text(sqlite3 *h, const char *sql, char *out, size_t n, int *rc) {
  sqlite3_stmt *st;
  out[0] = 0;
  *rc = sqlite3_prepare_v2(h, sql, -1, &st, NULL);
  if (*rc) return;
  int step = sqlite3_step(st);
  if (step == SQLITE_ROW) {
    const char *text = (const char *)sqlite3_column_text(st, 0);
    snprintf(out, n, "%s", text ? text : "");
  }
  int end = sqlite3_finalize(st);
  *rc = step == SQLITE_ROW ? SQLITE_OK : end ? end : SQLITE_ERROR;
}

static int set_journal(at_db *db, char *why, size_t n) {
  char mode[16];
  int rc;
  bool wal = at_sqlite_wal_is_sound(sqlite3_libversion_number()) && at_is_local_filesystem(db->path);
  pragma_text(db->h, wal ? "PRAGMA journal_mode=WAL" : "PRAGMA journal_mode=TRUNCATE", mode, sizeof mode, &rc);
  if (!rc && !wal && !sqlite3_stricmp(mode, "wal")) {
    snprintf(why, n, "other processes hold it in WAL mode, which is not safe with SQLite %s here",
             sqlite3_libversion());
    return SQLITE_READONLY;
  }
  return rc;
}

static int setup(at_db *db) {
  sqlite3 *h = db->h;
  db->patience_ms = READ_PATIENCE_MS;
  db->write_patience_ms = WRITE_PATIENCE_MS;
  sqlite3_extended_result_codes(h, 1);
  sqlite3_busy_handler(h, wait_for_lock, db);
  /* A file from elsewhere may hold triggers, odd schemas and absurd sizes. */
  sqlite3_db_config(h, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  sqlite3_db_config(h, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  sqlite3_db_config(h, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
  sqlite3_limit(h, SQLITE_LIMIT_LENGTH, AT_MAX_BLOB);
  return sqlite3_exec(h, "PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-8000;"
                         "PRAGMA cell_size_check=ON", NULL, NULL, NULL);
}

static int read_identity(at_db *db, int64_t *version, char *why, size_t n) {
  char text[32];
  int rc;
  pragma_text(db->h, "PRAGMA application_id", text, sizeof text, &rc);
  if (rc) return rc;
  long application = strtol(text, NULL, 10);
  pragma_text(db->h, "PRAGMA user_version", text, sizeof text, &rc);
  if (rc) return rc;
  *version = strtol(text, NULL, 10);
  if (application == 0 && *version == 0) {
    pragma_text(db->h, "SELECT count(*) FROM sqlite_master", text, sizeof text, &rc);
    if (rc) return rc;
    if (!strcmp(text, "0")) return SQLITE_EMPTY;
  }
  if (application != AT_APPLICATION_ID) {
    snprintf(why, n, "is a database of another program");
    return SQLITE_NOTADB;
  }
  if (*version > AT_SCHEMA_VERSION) {
    snprintf(why, n, "was written by a newer Tenon (schema %lld, this one knows %d)", (long long)*version,
             AT_SCHEMA_VERSION);
    return SQLITE_SCHEMA;
  }
  /* Whoever made the file, our names must be plain tables: a view may compute for ever. */
  pragma_text(db->h, "SELECT count(*) FROM sqlite_master WHERE type='table' AND name IN"
                     "('environment','workload','task','config','run','trial','pin','object')", text, sizeof text, &rc);
  if (!rc && strcmp(text, "8")) {
    snprintf(why, n, "lacks tables, so it is damaged");
    rc = SQLITE_CORRUPT;
  }
  return rc;
}

/* Finds out what the file is. SQLITE_EMPTY: nothing yet. In one transaction: else a file that another
 * process makes meanwhile looks half like nothing and half like a store. */
static int identify(at_db *db, int64_t *version, char *why, size_t n) {
  int rc = at_db_exec(db, AT_S_BEGIN_READ);
  if (rc) return rc;
  rc = read_identity(db, version, why, n);
  int end = at_db_exec(db, AT_S_COMMIT);
  return rc ? rc : end;
}

/* A WAL file in a folder that we cannot write cannot be opened the usual way. With
 * nothing in its log it may be read as one that never changes; if it does change, the
 * rows' hashes tell. */
static int open_immutable(at_db *db) {
  char *log = sqlite3_mprintf("%s-wal", db->path);
  sqlite3_str *uri = sqlite3_str_new(NULL);
  sqlite3_str_appendall(uri, "file:");
  for (const char *p = db->path; *p; p++)
    if (strchr("?#%", *p)) sqlite3_str_appendf(uri, "%%%02x", *p);
    else sqlite3_str_appendchar(uri, 1, *p);
  sqlite3_str_appendall(uri, "?immutable=1");
  char *name = sqlite3_str_finish(uri);
  struct stat s;
  int rc = !log || !name ? SQLITE_NOMEM : !stat(log, &s) && s.st_size > 0 ? SQLITE_CANTOPEN : SQLITE_OK;
  at_db_close(db);
  if (!rc) rc = sqlite3_open_v2(name, &db->h, SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
  sqlite3_free(log);
  sqlite3_free(name);
  return rc ? rc : setup(db);
}

/* A reader asks for write access too: when a writer was killed, whoever comes next
 * has to roll its journal back. Without permission SQLite opens for reading. */
static int open_plain(at_db *db, int more) {
  int rc = sqlite3_open_v2(db->path, &db->h, SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE | more, NULL);
  return rc ? rc : setup(db);
}

static int open_to_read(at_db *db, char *why, size_t n) {
  int64_t version = 0;
  int rc = open_plain(db, 0);
  if (!rc) rc = identify(db, &version, why, n);
  if (!why[0] && db->h && ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_READONLY) && !access(db->path, R_OK)) {
    rc = open_immutable(db);
    if (!rc) rc = identify(db, &version, why, n);
  }
  if (!rc) rc = sqlite3_exec(db->h, "PRAGMA query_only=1", NULL, NULL, NULL);
  if (!rc && version < AT_SCHEMA_VERSION) {
    snprintf(why, n, "has the old schema %lld and cannot be migrated, being read-only", (long long)version);
    rc = SQLITE_READONLY;
  }
  return rc;
}

static int open_to_write(at_db *db, char *why, size_t n) {
  int64_t version = 0;
  int rc = open_plain(db, SQLITE_OPEN_CREATE);
  if (rc) return rc;
  db->patience_ms = db->write_patience_ms;
  if (sqlite3_db_readonly(db->h, "main")) return SQLITE_READONLY;
  rc = identify(db, &version, why, n);
  if (rc && rc != SQLITE_EMPTY) return rc;
  rc = set_journal(db, why, n);
  if (!rc && version < AT_SCHEMA_VERSION) rc = at_migrate(db->h, at_schema_steps, AT_SCHEMA_VERSION);
  return rc;
}

int at_db_open(at_db *db, bool readonly, char *why, size_t n) {
  why[0] = 0;
  struct stat s;
  int rc;
  if (!stat(db->path, &s) && !S_ISREG(s.st_mode)) {
    snprintf(why, n, "is not a regular file");
    rc = SQLITE_CANTOPEN;
  } else {
    rc = readonly ? open_to_read(db, why, n) : open_to_write(db, why, n);
  }
  db->patience_ms = READ_PATIENCE_MS;
  if (rc) {
    if (!why[0]) {
      int os = db->h ? sqlite3_system_errno(db->h) : 0;
      bool tell = os && ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_IOERR);
      snprintf(why, n, "%s%s%s%s", rc == SQLITE_EMPTY ? "is empty" : at_code_text(rc), tell ? " (" : "",
               tell ? strerror(os) : "", tell ? ")" : "");
    }
    at_db_close(db);
    return rc;
  }
  db->writable = !readonly;
  return SQLITE_OK;
}

int at_db_open_memory(at_db *db) {
  if (db->h) return SQLITE_OK;
  db->path = ":memory:";
  db->memory = true;
  int rc = sqlite3_open_v2(":memory:", &db->h, SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
  if (!rc) rc = setup(db);
  if (!rc) rc = at_migrate(db->h, at_schema_steps, AT_SCHEMA_VERSION);
  if (rc) at_db_close(db);
  else db->writable = true;
  return rc;
}

void at_db_close(at_db *db) {
  for (int i = 0; i < AT_S_COUNT; i++) {
    sqlite3_finalize(db->st[i]);
    db->st[i] = NULL;
  }
  sqlite3_close_v2(db->h);
  db->h = NULL;
  db->writable = false;
}
