/* store.c — the store as a stack of databases: the private file, a place in memory
 * for rows that cannot be written to it, and shared files that are only read.
 *
 *      write ──> file ──(read-only, full, busy, damaged)──> memory ──(later)──> file
 *      read  ──> file + memory ──(nothing)──> shared 0 ──> shared 1 ...
 */
#include "autotune/store_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RETRY_US = 5000000, LAST_PATIENCE_MS = 3000 };

bool at_store_mine(const at_store *s) { return s && s->owner == getpid(); }

const char *at_store_trouble(const at_store *s) { return s ? s->trouble : ""; }

at_db *at_store_main(at_store *s) { return s->file.h ? &s->file : s->memory.h ? &s->memory : NULL; }

int at_store_layers(at_store *s, at_db *out[AT_LAYERS]) {
  int n = 0;
  if (s->file.h) out[n++] = &s->file;
  if (s->memory.h) out[n++] = &s->memory;
  for (int i = 0; i < s->nshared; i++) out[n++] = &s->shared[i];
  return n;
}

/* ---- trouble ---- */

static tn_status status_of(int rc) {
  int code = rc & 0xff;
  return code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_SCHEMA ? TN_EINPUT : TN_ERESOURCE;
}

void at_store_complain(at_store *s, at_db *db, int rc, const char *what) {
  int code = rc & 0xff;
  if (code == SQLITE_NOMEM) ir_fail(s->ctx, TN_ERESOURCE, "tuning store %s: out of memory", db->path);
  if (s->flags & AT_STORE_STRICT) ir_fail(s->ctx, status_of(rc), "tuning store %s %s", db->path, what);
  unsigned bit = 1u << (code & 31);
  if (!(s->warned & bit)) ir_log(s->ctx, "warning: tuning store %s %s", db->path, what);
  s->warned |= bit;
}

void at_store_warn_damaged(at_store *s, at_db *db) {
  if (!s->warned_damaged)
    ir_log(s->ctx, "warning: tuning store %s has damaged rows, which are skipped (tenon db verify tells more)", db->path);
  s->warned_damaged = true;
}

/* The file took no row: from now on, or for a while, they stay in memory. */
static void lose_file(at_store *s, int rc, const char *why) {
  int code = rc & 0xff;
  bool passing = code == SQLITE_BUSY || code == SQLITE_LOCKED || code == SQLITE_FULL || code == SQLITE_IOERR;
  if (passing) s->retry_us = at_now_us() + RETRY_US;
  else s->file.writable = false;
  snprintf(s->trouble, sizeof s->trouble, "%s", why);
  char text[512];
  snprintf(text, sizeof text, "%s; new results are kept in memory%s", why, passing ? " for now" : " and not saved");
  at_store_complain(s, &s->file, rc, text);
}

/* Moves the rows in memory to the file. */
static int flush(at_store *s) {
  at_tally t = {0};
  int rc = at_copy_rows(&s->memory, &s->file, &t);
  if (!rc) {
    at_db_close(&s->memory);
    s->waiting = 0;
    s->trouble[0] = 0;
  }
  return rc;
}

void at_store_write(at_store *s, int64_t rows, int (*fn)(at_db *db, void *arg), void *arg) {
  if (s->file.writable && at_now_us() >= s->retry_us) {
    int rc = s->waiting ? flush(s) : SQLITE_OK;
    if (!rc) rc = at_db_write(&s->file, fn, arg);
    if (!rc) return;
    lose_file(s, rc, at_code_text(rc));
  }
  int rc = at_db_open_memory(&s->memory);
  if (!rc) rc = at_db_write(&s->memory, fn, arg);
  if (rc) at_store_complain(s, &s->memory, rc, at_code_text(rc));
  else s->waiting += rows;
}

/* ---- open and close ---- */

const char *at_store_default_path(tn_ctx *ctx) {
  const char *p = getenv("TENON_DB");
  if (p && p[0]) return strcmp(p, "none") ? ir_strdup(ctx, p) : NULL;
  p = getenv("XDG_CACHE_HOME");
  if (p && p[0] == '/') return ir_format(ctx, "%s/tenon/tenon.db", p);
  p = getenv("HOME");
  return p && p[0] == '/' ? ir_format(ctx, "%s/.cache/tenon/tenon.db", p) : NULL;
}

/* Makes the folders above a file. Failures show when the file is opened. */
static void make_folders(tn_ctx *ctx, const char *path) {
  char *copy = ir_strdup(ctx, path);
  for (char *p = copy + 1; *copy && (p = strchr(p, '/')); p++) {
    *p = 0;
    if (mkdir(copy, 0700) && errno != EEXIST) return;
    *p = '/';
  }
}

static void release(void *arg) {
  at_store *s = arg;
  if (!at_store_mine(s)) return; /* a child must not touch its parent's locks */
  if (s->waiting && s->file.writable) {
    s->file.write_patience_ms = LAST_PATIENCE_MS;
    int rc = flush(s);
    if (rc)
      ir_log(s->ctx, "warning: tuning store %s: %s; %lld results are lost", s->file.path, at_code_text(rc),
             (long long)s->waiting);
  }
  at_db_close(&s->file);
  at_db_close(&s->memory);
  for (int i = 0; i < s->nshared; i++) at_db_close(&s->shared[i]);
  s->nshared = 0;
  s->owner = 0; /* closed: every call is a miss */
}

static void open_file(at_store *s, bool readonly) {
  char why[300];
  struct stat st;
  const char *path = s->file.path;
  if (readonly) {
    bool strict = s->flags & AT_STORE_STRICT;
    if (stat(path, &st) && errno == ENOENT && !strict) return; /* nothing tuned yet */
    int rc = at_db_open(&s->file, true, why, sizeof why);
    if (rc && (rc != SQLITE_EMPTY || strict)) at_store_complain(s, &s->file, rc, why);
    return;
  }
  make_folders(s->ctx, path);
  int rc = at_db_open(&s->file, false, why, sizeof why);
  if (!rc) return;
  lose_file(s, rc, why);
  int code = rc & 0xff;
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_SCHEMA) return;
  char again[300];
  if (!at_db_open(&s->file, true, again, sizeof again)) s->retry_us = INT64_MAX; /* to look things up */
}

at_store *at_store_open(tn_ctx *ctx, const char *path, unsigned flags) {
  bool named = path && path[0];
  if (named && !strcmp(path, "none")) return NULL;
  const char *off = getenv("TENON_DB");
  if (!named && off && !strcmp(off, "none")) return NULL;
  at_store *s = IR_NEW(ctx, at_store);
  s->ctx = ctx;
  s->flags = flags;
  s->owner = getpid();
  ir_defer(ctx, release, s);
  s->file.path = named ? ir_strdup(ctx, path) : at_store_default_path(ctx);
  if (!s->file.path) {
    s->file.path = "(no home folder)";
    lose_file(s, SQLITE_CANTOPEN, "has no place: neither TENON_DB, XDG_CACHE_HOME nor HOME is set");
  } else if (!strcmp(s->file.path, ":memory:")) {
    int rc = at_db_open_memory(&s->memory);
    if (rc) at_store_complain(s, &s->memory, rc, at_code_text(rc));
  } else {
    open_file(s, flags & AT_STORE_READONLY);
  }
  const char *shared = flags & AT_STORE_NOSHARED ? NULL : getenv("TENON_DB_SHARED");
  for (; shared && *shared; shared += shared[0] == ':') {
    size_t n = strcspn(shared, ":");
    if (n) at_store_add_shared(s, ir_strndup(ctx, shared, n));
    shared += n;
  }
  return s;
}

bool at_store_add_shared(at_store *s, const char *path) {
  if (!at_store_mine(s)) return false;
  char why[300];
  at_db *db = &s->shared[s->nshared];
  if (s->nshared == AT_MAX_SHARED) {
    ir_log(s->ctx, "warning: tuning store %s is left out: more than %d shared stores", path, AT_MAX_SHARED);
    return false;
  }
  *db = (at_db){.path = ir_strdup(s->ctx, path), .shared = true};
  int rc = at_db_open(db, true, why, sizeof why);
  if (rc) {
    at_store_complain(s, db, rc, why);
    return false;
  }
  s->nshared++;
  return true;
}

void at_store_close(at_store *s) {
  if (!at_store_mine(s)) return;
  ir_undefer(s->ctx, release, s);
  release(s);
}
