/* store_rows.c — the tables as data, and rows that know their hash. */
#include "autotune/store_internal.h"
#include <math.h>
#include <string.h>

const at_table at_tables[AT_TABLES] = {
    [AT_T_ENVIRONMENT] = {"environment", 7, 7, false,
        {{"target", AT_TEXT, 0}, {"cpu", AT_TEXT, 0}, {"isa", AT_TEXT, 0}, {"caches", AT_TEXT, 0},
         {"kernel", AT_TEXT, 0}, {"library", AT_TEXT, 0}, {"probes", AT_TEXT, 0}}},
    [AT_T_WORKLOAD] = {"workload", 3, 1, true,
        {{"kernel", AT_TEXT, 0}, {"class", AT_TEXT, 0}, {"name", AT_TEXT, 0}}},
    [AT_T_TASK] = {"task", 3, 3, false,
        {{"workload", AT_REF, AT_T_WORKLOAD}, {"target", AT_TEXT, 0}, {"policy", AT_TEXT, 0}}},
    [AT_T_CONFIG] = {"config", 1, 1, false, {{"schedule", AT_TEXT, 0}}},
    [AT_T_RUN] = {"run", 8, 0, true,
        {{"environment", AT_REF, AT_T_ENVIRONMENT}, {"seed", AT_INT, 0}, {"budget_s", AT_REAL, 0},
         {"budget_trials", AT_INT, 0}, {"started", AT_INT, 0}, {"ended", AT_INT, 0}, {"host", AT_TEXT, 0},
         {"label", AT_TEXT, 0}}},
    [AT_T_TRIAL] = {"trial", 18, 18, false,
        {{"run", AT_REF, AT_T_RUN}, {"seq", AT_INT, 0}, {"task", AT_REF, AT_T_TASK}, {"config", AT_REF, AT_T_CONFIG},
         {"codegen", AT_TEXT, 0}, {"status", AT_TEXT, 0}, {"stage", AT_INT, 0}, {"origin", AT_TEXT, 0},
         {"reason", AT_TEXT, 0}, {"n", AT_INT, 0}, {"min_ns", AT_REAL, 0}, {"median_ns", AT_REAL, 0},
         {"mad_ns", AT_REAL, 0}, {"cost_ns", AT_REAL, 0}, {"predicted_ns", AT_REAL, 0}, {"compile_ms", AT_REAL, 0},
         {"time", AT_INT, 0}, {"samples", AT_LIST, 0}}},
    [AT_T_PIN] = {"pin", 4, 1, true,
        {{"task", AT_REF, AT_T_TASK}, {"config", AT_REF, AT_T_CONFIG}, {"active", AT_INT, 0}, {"note", AT_TEXT, 0}}},
};

static bool is_text(at_kind k) { return k == AT_TEXT || k == AT_LIST || k == AT_REF; }

void at_row_start(at_row *r, at_table_id table) {
  memset(r, 0, sizeof *r);
  r->table = &at_tables[table];
  for (int i = 0; i < r->table->ncols; i++)
    if (is_text(r->table->cols[i].kind)) r->v[i].s = "";
}

static void hash_columns(at_hasher *h, const at_row *r, int n) {
  for (int i = 0; i < n; i++)
    switch (r->table->cols[i].kind) {
      case AT_INT: at_hash_int(h, r->v[i].i); break;
      case AT_REAL: at_hash_real(h, r->v[i].d); break;
      default: at_hash_text(h, r->v[i].s);
    }
}

void at_row_uid(const at_row *r, char uid[AT_UID + 1]) {
  at_hasher h;
  at_hash_start(&h);
  at_hash_text(&h, r->table->name);
  hash_columns(&h, r, r->table->nkey);
  at_hash_end(&h, uid);
}

static void sum_of(const at_row *r, char sum[AT_UID + 1]) {
  at_hasher h;
  at_hash_start(&h);
  at_hash_text(&h, r->uid);
  at_hash_int(&h, r->stamp);
  hash_columns(&h, r, r->table->ncols);
  at_hash_end(&h, sum);
}

void at_row_seal(at_row *r) {
  if (r->table->nkey) at_row_uid(r, r->uid);
  if (r->table->changes) sum_of(r, r->sum);
  r->sound = true;
}

void at_row_check(at_row *r) {
  char is[AT_UID + 1];
  r->sound = strlen(r->uid) == AT_UID;
  if (r->sound && r->table->nkey) {
    at_row_uid(r, is);
    r->sound = !strcmp(is, r->uid);
  }
  if (r->sound && r->table->changes) {
    sum_of(r, is);
    r->sound = !strcmp(is, r->sum);
  }
}

/* ---- between rows and SQL ---- */

int at_row_columns(at_table_id table) { return 2 + at_tables[table].ncols + (at_tables[table].changes ? 2 : 0); }

static const char *column_text(sqlite3_stmt *st, int i) {
  const char *s = (const char *)sqlite3_column_text(st, i);
  return s ? s : "";
}

static void copy_uid(char to[AT_UID + 1], const char *from) { snprintf(to, AT_UID + 1, "%s", from); }

void at_row_read(at_row *r, at_table_id table, sqlite3_stmt *st, int first) {
  at_row_start(r, table);
  int c = first;
  r->id = sqlite3_column_int64(st, c++);
  copy_uid(r->uid, column_text(st, c++));
  for (int i = 0; i < r->table->ncols; i++, c++)
    switch (r->table->cols[i].kind) {
      case AT_INT: r->v[i].i = sqlite3_column_int64(st, c); break;
      case AT_REAL: r->v[i].d = sqlite3_column_type(st, c) == SQLITE_NULL ? NAN : sqlite3_column_double(st, c); break;
      default: r->v[i].s = column_text(st, c);
    }
  if (r->table->changes) {
    r->stamp = sqlite3_column_int64(st, c++);
    copy_uid(r->sum, column_text(st, c++));
  }
  at_row_check(r);
}

/* Text of the insert for a table. Immutable rows: there or not. Changing rows: the
 * later version stays, whichever came first. */
static char *insert_sql(const at_table *t) {
  sqlite3_str *s = sqlite3_str_new(NULL);
  sqlite3_str_appendf(s, "INSERT INTO %s(uid", t->name);
  for (int i = 0; i < t->ncols; i++) sqlite3_str_appendf(s, ",%s", t->cols[i].name);
  sqlite3_str_appendall(s, t->changes ? ",stamp,sum) VALUES(?" : ") VALUES(?");
  for (int i = 0; i < t->ncols; i++)
    if (t->cols[i].kind == AT_REF)
      sqlite3_str_appendf(s, ",(SELECT id FROM %s WHERE uid=?)", at_tables[t->cols[i].refers].name);
    else
      sqlite3_str_appendall(s, ",?");
  if (!t->changes) {
    sqlite3_str_appendall(s, ") ON CONFLICT(uid) DO NOTHING");
  } else {
    sqlite3_str_appendall(s, ",?,?) ON CONFLICT(uid) DO UPDATE SET stamp=excluded.stamp,sum=excluded.sum");
    for (int i = 0; i < t->ncols; i++) sqlite3_str_appendf(s, ",%s=excluded.%s", t->cols[i].name, t->cols[i].name);
    sqlite3_str_appendf(s, " WHERE (excluded.stamp,excluded.sum)>(%s.stamp,%s.sum)", t->name, t->name);
  }
  return sqlite3_str_finish(s);
}

int at_db_insert(at_db *db, const at_row *row, int64_t *changed) {
  const at_table *t = row->table;
  sqlite3_stmt **slot = &db->st[AT_S_INSERT + (t - at_tables)];
  if (!*slot) {
    char *sql = insert_sql(t);
    if (!sql) return SQLITE_NOMEM;
    int rc = sqlite3_prepare_v3(db->h, sql, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
    sqlite3_free(sql);
    if (rc) return rc;
  }
  sqlite3_stmt *st = *slot;
  int c = 1;
  at_st_text(st, c++, row->uid);
  for (int i = 0; i < t->ncols; i++, c++)
    switch (t->cols[i].kind) {
      case AT_INT: sqlite3_bind_int64(st, c, row->v[i].i); break;
      case AT_REAL: sqlite3_bind_double(st, c, row->v[i].d); break; /* NaN becomes null */
      default: at_st_text(st, c, row->v[i].s);
    }
  if (t->changes) {
    sqlite3_bind_int64(st, c++, row->stamp);
    at_st_text(st, c++, row->sum);
  }
  int rc = at_st_run(st);
  sqlite3_clear_bindings(st);
  if (!rc && changed) *changed += sqlite3_changes(db->h);
  return rc;
}
