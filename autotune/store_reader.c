/* store_reader.c — walking over a table without holding its lock.
 *
 * The ids are gathered first (8 bytes a row), then rows come in pages that are
 * copied out of SQLite. Between two pages nothing is locked, so a slow consumer (a
 * pager, a merge that waits for its own target) never keeps a writer waiting.
 */
#include "autotune/store_internal.h"
#include <stdlib.h>
#include <string.h>

enum { PAGE = 256 };

typedef struct chunk {
  struct chunk *next;
  size_t used, cap;
  char bytes[];
} chunk;

struct at_reader {
  at_db *db;
  at_table_id table;
  bool texts;
  int64_t *ids;
  int64_t n, cap, next;  /* ids: how many, and the first not yet in a page */
  at_row page[PAGE];
  int page_n, page_at;
  chunk *chunks;         /* texts of the page */
  sqlite3_stmt *fetch;   /* one row by id */
  int error;
  int64_t skipped;
};

static const char *keep(at_reader *r, const char *s) {
  size_t n = strlen(s) + 1;
  if (n == 1) return "";
  if (!r->chunks || r->chunks->cap - r->chunks->used < n) {
    size_t cap = n > 65536 ? n : 65536;
    chunk *c = malloc(sizeof *c + cap);
    if (!c) return NULL;
    *c = (chunk){r->chunks, 0, cap};
    r->chunks = c;
  }
  char *p = r->chunks->bytes + r->chunks->used;
  r->chunks->used += n;
  return memcpy(p, s, n);
}

/* Drops the texts of the page; the first-made chunk stays for the next one. */
static void forget(at_reader *r, bool all) {
  while (r->chunks && (all || r->chunks->next)) {
    chunk *next = r->chunks->next;
    free(r->chunks);
    r->chunks = next;
  }
  if (r->chunks) r->chunks->used = 0;
}

static bool add_id(at_reader *r, int64_t id) {
  if (r->n == r->cap) {
    int64_t cap = r->cap ? 2 * r->cap : 256;
    int64_t *ids = realloc(r->ids, (size_t)cap * sizeof *ids);
    if (!ids) return false;
    r->ids = ids;
    r->cap = cap;
  }
  r->ids[r->n++] = id;
  return true;
}

/* Gathers ids in the order of `tail` until the end, an error, or the id `stop`. */
static int gather(at_reader *r, const char *where, const char *const *args, int nargs, const char *tail, int64_t stop) {
  char *sql = sqlite3_mprintf("SELECT t.id FROM %s t %s%s%s %s", at_tables[r->table].name, tail[0] ? "NOT INDEXED" : "",
                              where ? " WHERE " : "", where ? where : "", tail[0] ? tail : "ORDER BY t.uid");
  if (!sql) return SQLITE_NOMEM;
  sqlite3_stmt *st;
  int rc = sqlite3_prepare_v2(r->db->h, sql, -1, &st, NULL);
  sqlite3_free(sql);
  if (rc) return rc;
  for (int i = 0; i < nargs; i++) at_st_text(st, i + 1, args[i]);
  while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    int64_t id = sqlite3_column_int64(st, 0);
    if (id == stop) break;
    if (!add_id(r, id)) {
      rc = SQLITE_NOMEM;
      break;
    }
  }
  int end = sqlite3_finalize(st);
  return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : end ? end : rc;
}

static char *fetch_sql(const at_reader *r) {
  sqlite3_str *s = sqlite3_str_new(NULL);
  if (r->table == AT_T_TRIAL) {
    sqlite3_str_appendall(s, at_select_trial());
  } else {
    const at_table *t = &at_tables[r->table];
    sqlite3_str_appendall(s, "SELECT t.id,t.uid");
    for (int i = 0; i < t->ncols; i++)
      if (t->cols[i].kind == AT_REF) sqlite3_str_appendf(s, ",r%d.uid", i);
      else sqlite3_str_appendf(s, ",t.%s", t->cols[i].name);
    if (t->changes) sqlite3_str_appendall(s, ",t.stamp,t.sum");
    sqlite3_str_appendf(s, " FROM %s t", t->name);
    for (int i = 0; i < t->ncols; i++)
      if (t->cols[i].kind == AT_REF)
        sqlite3_str_appendf(s, " LEFT JOIN %s r%d ON r%d.id=t.%s", at_tables[t->cols[i].refers].name, i, i,
                            t->cols[i].name);
  }
  sqlite3_str_appendall(s, " WHERE t.id=?1");
  return sqlite3_str_finish(s);
}

at_reader *at_reader_new(at_db *db, at_table_id table, at_order order, const char *where, const char *const *args,
                         int nargs, bool texts) {
  at_reader *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->db = db;
  r->table = table;
  r->texts = texts && table == AT_T_TRIAL;
  if (order == AT_BY_UID) {
    r->error = gather(r, where, args, nargs, "", -1);
  } else {
    r->error = gather(r, where, args, nargs, "ORDER BY t.id", -1);
    if ((r->error & 0xff) == SQLITE_CORRUPT) /* walk in from the other end as well */
      gather(r, where, args, nargs, "ORDER BY t.id DESC", r->n ? r->ids[r->n - 1] : -1);
  }
  char *sql = fetch_sql(r);
  int rc = sql ? sqlite3_prepare_v2(db->h, sql, -1, &r->fetch, NULL) : SQLITE_NOMEM;
  sqlite3_free(sql);
  if (rc) r->error = rc;
  return r;
}

/* The texts that a trial refers to still hash to what it refers to. */
static bool texts_agree(const at_row *r) {
  char workload[AT_UID + 1], task[AT_UID + 1], config[AT_UID + 1];
  at_task_uid(&(at_key){.kernel = r->text[AT_X_KERNEL], .target = r->text[AT_X_TARGET], .policy = r->text[AT_X_POLICY]},
              workload, task);
  at_config_uid(r->text[AT_X_SCHEDULE], config);
  return !strcmp(task, r->v[AT_TRIAL_TASK].s) && !strcmp(config, r->v[AT_TRIAL_CONFIG].s);
}

static int read_row(at_reader *r, int64_t id) {
  at_row *row = &r->page[r->page_n];
  sqlite3_bind_int64(r->fetch, 1, id);
  int rc = sqlite3_step(r->fetch);
  if (rc == SQLITE_ROW) {
    rc = SQLITE_OK;
    at_row_read(row, r->table, r->fetch, 0);
    for (int i = 0; i < row->table->ncols; i++)
      if (row->table->cols[i].kind != AT_INT && row->table->cols[i].kind != AT_REAL &&
          !(row->v[i].s = keep(r, row->v[i].s)))
        rc = SQLITE_NOMEM;
    for (int i = 0; r->texts && i < AT_MAX_TEXTS; i++) {
      const char *s = (const char *)sqlite3_column_text(r->fetch, at_row_columns(r->table) + i);
      if (!(row->text[i] = keep(r, s ? s : ""))) rc = SQLITE_NOMEM;
    }
    if (r->texts && !rc && row->sound) row->sound = texts_agree(row);
    if (!rc) r->page_n++;
  } else if (rc == SQLITE_DONE) {
    rc = SQLITE_OK; /* deleted meanwhile */
  }
  int end = sqlite3_reset(r->fetch);
  return rc ? rc : end;
}

static void fill(at_reader *r) {
  forget(r, false);
  r->page_n = r->page_at = 0;
  if (!r->fetch) {
    r->next = r->n;
    return;
  }
  bool alone = sqlite3_get_autocommit(r->db->h) && !at_db_exec(r->db, AT_S_BEGIN_READ);
  while (r->next < r->n && r->page_n < PAGE) {
    int rc = read_row(r, r->ids[r->next++]);
    if (!rc) continue;
    r->error = rc;
    r->skipped++;
    if ((rc & 0xff) != SQLITE_CORRUPT && (rc & 0xff) != SQLITE_IOERR) {
      r->skipped += r->n - r->next;
      r->next = r->n; /* busy, or out of memory: no use to go on */
    }
  }
  if (alone) at_db_exec(r->db, AT_S_COMMIT);
}

const at_row *at_reader_next(at_reader *r) {
  while (r->page_at == r->page_n) {
    if (r->next == r->n) return NULL;
    fill(r);
  }
  return &r->page[r->page_at++];
}

const at_row *at_reader_page(at_reader *r, int *n) {
  const at_row *first = at_reader_next(r);
  *n = first ? r->page_n - r->page_at + 1 : 0;
  r->page_at = r->page_n;
  return first;
}

int at_reader_error(const at_reader *r) { return r->error; }
int64_t at_reader_skipped(const at_reader *r) { return r->skipped; }

void at_reader_free(void *arg) {
  at_reader *r = arg;
  if (!r) return;
  sqlite3_finalize(r->fetch);
  forget(r, true);
  free(r->ids);
  free(r);
}
