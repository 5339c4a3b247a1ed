/* store_merge.c — whole stores: copy, export, import, merge, verify.
 *
 * Rows are only ever added, or replaced by a later version of themselves, so the
 * order of merging does not matter and merging again adds nothing.
 */
#include "autotune/store_internal.h"
#include <stdlib.h>
#include <string.h>

/* ---- inserting rows from elsewhere ---- */

typedef struct rows {
  const at_row *row;
  int n;
  at_tally tally; /* of the last attempt */
} rows;

static int insert_rows(at_db *db, void *arg) {
  rows *r = arg;
  r->tally = (at_tally){0};
  for (int i = 0; i < r->n; i++) {
    r->tally.read++;
    /* A constraint fails when a row refers to one that is missing or was refused. */
    int rc = r->row[i].sound ? at_db_insert(db, &r->row[i], &r->tally.added) : SQLITE_CONSTRAINT;
    if ((rc & 0xff) == SQLITE_CONSTRAINT || (rc & 0xff) == SQLITE_TOOBIG) r->tally.damaged++;
    else if (rc) return rc;
  }
  return SQLITE_OK;
}

static void add_tally(at_tally *to, const at_tally *t) {
  to->read += t->read;
  to->added += t->added;
  to->damaged += t->damaged;
}

int at_copy_rows(at_db *from, at_db *to, at_tally *tally) {
  int rc = SQLITE_OK;
  for (int i = 0; i < AT_TABLES && !rc; i++) {
    at_reader *reader = at_reader_new(from, (at_table_id)i, AT_BY_ID, NULL, NULL, 0, false);
    if (!reader) return SQLITE_NOMEM;
    rows r;
    while (!rc && (r.row = at_reader_page(reader, &r.n))) {
      rc = at_db_write(to, insert_rows, &r);
      if (!rc) add_tally(tally, &r.tally);
    }
    if (!rc) rc = at_reader_error(reader);
    at_reader_free(reader);
  }
  return rc;
}

/* ---- merge ---- */

typedef struct source {
  at_db db;
  at_reader *reader;
} source;

static void source_free(void *arg) {
  source *src = arg;
  at_reader_free(src->reader);
  src->reader = NULL;
  at_db_close(&src->db);
}

at_tally at_store_merge(at_store *s, const char *path) {
  at_tally tally = {0};
  if (!at_store_mine(s)) return tally;
  source *src = IR_NEW(s->ctx, source);
  char why[300];
  src->db.path = ir_strdup(s->ctx, path);
  ir_defer(s->ctx, source_free, src);
  int rc = at_db_open(&src->db, true, why, sizeof why);
  if (rc && rc != SQLITE_EMPTY)
    ir_fail(s->ctx, (rc & 0xff) == SQLITE_NOTADB || (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_SCHEMA
                        ? TN_EINPUT : TN_ERESOURCE, "tuning store %s %s", path, why);
  for (int i = 0; i < AT_TABLES && !rc; i++) {
    src->reader = at_reader_new(&src->db, (at_table_id)i, AT_BY_ID, NULL, NULL, 0, false);
    if (!src->reader) ir_fail(s->ctx, TN_ERESOURCE, "out of memory");
    rows r;
    while ((r.row = at_reader_page(src->reader, &r.n))) {
      at_store_write(s, r.n, insert_rows, &r);
      add_tally(&tally, &r.tally);
    }
    tally.damaged += at_reader_skipped(src->reader);
    int err = at_reader_error(src->reader);
    if (err) /* what could be read is in; the rest is lost */
      ir_log(s->ctx, "warning: tuning store %s: table %s: %s; some of it could not be read", path, at_tables[i].name,
             at_code_text(err));
    if (err && !at_reader_skipped(src->reader)) tally.damaged++;
    at_reader_free(src->reader);
    src->reader = NULL;
  }
  ir_undefer(s->ctx, source_free, src);
  source_free(src);
  return tally;
}

/* ---- export ---- */

static const char header[] = "{\"tenon\":\"tuning store\",\"schema\":";

at_tally at_store_export(at_store *s, FILE *out) {
  at_tally tally = {0};
  fprintf(out, "%s%d}\n", header, AT_SCHEMA_VERSION);
  at_db *db = at_store_mine(s) ? at_store_main(s) : NULL;
  if (!db) return tally;
  /* Trials that come in while the other tables are written would refer to rows that
   * are not in the text; so only those that are there now. */
  char last[32];
  snprintf(last, sizeof last, "%lld", (long long)at_db_int(db, "SELECT max(id) FROM trial", INT64_MAX));
  const char *const args[] = {last};
  source *src = IR_NEW(s->ctx, source); /* its database stays closed */
  ir_defer(s->ctx, source_free, src);
  for (int i = 0; i < AT_TABLES; i++) {
    bool trials = i == AT_T_TRIAL;
    src->reader = at_reader_new(db, (at_table_id)i, AT_BY_UID, trials ? "t.id<=CAST(?1 AS INTEGER)" : NULL, args, trials, false);
    if (!src->reader) ir_fail(s->ctx, TN_ERESOURCE, "out of memory");
    for (const at_row *r; (r = at_reader_next(src->reader));) {
      tally.read++;
      if (r->sound) at_json_row(out, r);
      else tally.damaged++;
    }
    tally.damaged += at_reader_skipped(src->reader);
    int err = at_reader_error(src->reader);
    if (err) at_store_complain(s, db, err, at_code_text(err));
    at_reader_free(src->reader);
    src->reader = NULL;
  }
  ir_undefer(s->ctx, source_free, src);
  source_free(src);
  if (fflush(out) || ferror(out)) ir_fail(s->ctx, TN_ERESOURCE, "the export could not be written: disk full or pipe closed");
  if (tally.damaged) at_store_warn_damaged(s, db);
  return tally;
}

/* ---- import ---- */

enum { BATCH = 256 };

typedef struct lines {
  char *line; /* the one being read */
  size_t cap;
  char *kept[BATCH], *list[BATCH]; /* texts of rows that wait */
  at_row row[BATCH];
  int n;
} lines;

static void lines_drop(lines *l) {
  for (int i = 0; i < l->n; i++) {
    free(l->kept[i]);
    sqlite3_free(l->list[i]);
  }
  l->n = 0;
}

static void lines_free(void *arg) {
  lines *l = arg;
  lines_drop(l);
  free(l->line);
  l->line = NULL;
  l->cap = 0;
}

/* Reads one line without its end. 1: a line; 0: the end; -1: too long, and skipped. */
static int read_line(tn_ctx *ctx, lines *l, FILE *in) {
  size_t n = 0;
  bool too_long = false, any = false;
  for (int c; (c = getc(in)) != EOF;) {
    any = true;
    if (c == '\n') break;
    if (n + 2 > l->cap && n < AT_MAX_BLOB) {
      size_t cap = l->cap ? 2 * l->cap : 4096;
      char *more = realloc(l->line, cap);
      if (!more) ir_fail(ctx, TN_ERESOURCE, "out of memory");
      l->line = more;
      l->cap = cap;
    }
    if (n >= AT_MAX_BLOB) too_long = true;
    else l->line[n++] = (char)(c ? c : 1); /* a zero byte is damage; no text may end early */
  }
  if (!any) return 0;
  if (l->line) l->line[n] = 0;
  return too_long ? -1 : 1;
}

static void import_batch(at_store *s, lines *l, at_tally *tally) {
  rows r = {l->row, l->n, {0}};
  if (l->n) at_store_write(s, l->n, insert_rows, &r);
  add_tally(tally, &r.tally);
  lines_drop(l);
}

at_tally at_store_import(at_store *s, FILE *in, const char *name) {
  at_tally tally = {0};
  if (!at_store_mine(s)) return tally;
  lines *l = IR_NEW(s->ctx, lines);
  ir_defer(s->ctx, lines_free, l);
  long number = 0, told = 0;
  bool started = false;
  for (int got; (got = read_line(s->ctx, l, in));) {
    number++;
    if (got > 0 && (!l->line || !l->line[strspn(l->line, " \t\r")])) continue;
    if (got > 0 && !strncmp(l->line, header, sizeof header - 1)) { /* also between joined exports */
      long schema = strtol(l->line + sizeof header - 1, NULL, 10);
      if (schema > AT_SCHEMA_VERSION)
        ir_fail(s->ctx, TN_EINPUT, "%s:%ld: written by a newer Tenon (schema %ld, this one knows %d)", name, number, schema,
                AT_SCHEMA_VERSION);
      started = true;
      continue;
    }
    if (!started) ir_fail(s->ctx, TN_EINPUT, "%s:%ld: not an export of a tuning store: the header is missing", name, number);
    const char *wrong = got < 0 ? "is too long" : at_json_parse_row(l->line, &l->row[l->n], &l->list[l->n]);
    if (wrong) {
      if (got > 0) sqlite3_free(l->list[l->n]);
      tally.read++;
      tally.damaged++;
      if (told++ < 10) ir_log(s->ctx, "warning: %s:%ld: the line %s; skipped", name, number, wrong);
      continue;
    }
    l->kept[l->n++] = l->line;
    l->line = NULL;
    l->cap = 0;
    if (l->n == BATCH) import_batch(s, l, &tally);
  }
  if (ferror(in)) ir_fail(s->ctx, TN_ERESOURCE, "%s: cannot be read", name);
  if (!started && number) ir_fail(s->ctx, TN_EINPUT, "%s: not an export of a tuning store", name);
  import_batch(s, l, &tally);
  ir_undefer(s->ctx, lines_free, l);
  lines_free(l);
  return tally;
}

/* ---- verify ---- */

typedef struct report {
  at_store *s;
  at_db *db;
  void (*say)(void *user, const char *line);
  void *user;
  at_tally tally;
  sqlite3_stmt *st;
  at_reader *reader;
} report;

static void report_free(void *arg) {
  report *r = arg;
  sqlite3_finalize(r->st);
  at_reader_free(r->reader);
  r->st = NULL;
  r->reader = NULL;
}

static void tell(report *r, const char *fmt, ...) {
  char line[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line, sizeof line, fmt, ap);
  va_end(ap);
  if (r->say) r->say(r->user, line);
}

/* Runs a check whose rows are complaints; returns how many. */
static int64_t check_file(report *r, const char *sql, const char *fine) {
  int64_t bad = 0;
  int rc = sqlite3_prepare_v2(r->db->h, sql, -1, &r->st, NULL);
  while (!rc && (rc = sqlite3_step(r->st)) == SQLITE_ROW) {
    const char *text = at_or_empty((const char *)sqlite3_column_text(r->st, 0));
    rc = SQLITE_OK;
    if (!strcmp(text, fine)) continue;
    bad++;
    tell(r, "file: %s", text);
  }
  if (rc && rc != SQLITE_DONE) {
    bad++;
    tell(r, "file: %s", at_code_text(rc));
  }
  sqlite3_finalize(r->st);
  r->st = NULL;
  return bad;
}

typedef struct doomed {
  const char *table;
  int64_t id;
} doomed;

static int delete_row(at_db *db, void *arg) {
  const doomed *d = arg;
  char sql[96];
  snprintf(sql, sizeof sql, "DELETE FROM %s WHERE id=%lld", d->table, (long long)d->id);
  return sqlite3_exec(db->h, sql, NULL, NULL, NULL);
}

static void check_rows(report *r, at_table_id table, bool repair) {
  r->reader = at_reader_new(r->db, table, AT_BY_ID, NULL, NULL, 0, false);
  if (!r->reader) ir_fail(r->s->ctx, TN_ERESOURCE, "out of memory");
  for (const at_row *row; (row = at_reader_next(r->reader));) {
    r->tally.read++;
    if (row->sound) continue;
    r->tally.damaged++;
    doomed d = {row->table->name, row->id};
    int rc = repair ? at_db_write(r->db, delete_row, &d) : SQLITE_OK;
    tell(r, "%s %lld (uid %.32s) does not match its hash%s", d.table, (long long)d.id, row->uid,
         !repair ? "" : rc ? "; it cannot be deleted" : "; deleted");
    if (repair && !rc) r->tally.added++;
  }
  int err = at_reader_error(r->reader);
  if (err) {
    r->tally.damaged++;
    tell(r, "%s: %s", at_tables[table].name, at_code_text(err));
  }
  at_reader_free(r->reader);
  r->reader = NULL;
}

at_tally at_store_verify(at_store *s, bool repair, void (*say)(void *user, const char *line), void *user) {
  at_db *db = at_store_mine(s) ? at_store_main(s) : NULL;
  if (!db) return (at_tally){0};
  report *r = IR_NEW(s->ctx, report);
  *r = (report){.s = s, .db = db, .say = say, .user = user};
  ir_defer(s->ctx, report_free, r);
  int64_t bad = check_file(r, "PRAGMA integrity_check(20)", "ok");
  if (!bad) check_file(r, "SELECT \"table\" || ' ' || rowid || ' refers to a missing row of ' || parent"
                          " FROM pragma_foreign_key_check LIMIT 20", "");
  r->tally.damaged += bad;
  if (repair && (bad || !db->writable)) {
    tell(r, "file: cannot be repaired in place; move it away and merge it into a new store");
    repair = false;
  }
  for (int i = 0; i < AT_TABLES; i++) check_rows(r, (at_table_id)i, repair);
  at_tally t = r->tally;
  ir_undefer(s->ctx, report_free, r);
  report_free(r);
  return t;
}
