/* store_gc.c — forgetting old trials without changing a winner.
 *
 * Only whole configs go: were the well-founded trial of a config deleted and a lucky
 * short one left, the config could rise to winner. The other way round is fine.
 */
#include "autotune/store_internal.h"
#include <string.h>

typedef struct collection {
  const at_gc *how;
  at_gc_result result;
} collection;

/* ?1: delete what is older than this moment; ?2: how many to keep. */
static const char *const steps[] = {
  "CREATE TEMP TABLE gc_ok AS SELECT id, task, config, codegen, cost_ns, predicted_ns, uid, time,"
  "  row_number() OVER (PARTITION BY task, config, codegen ORDER BY n DESC, time DESC, uid DESC) AS place,"
  "  max(time) OVER (PARTITION BY task, config, codegen) AS newest"
  "  FROM trial WHERE status = 'ok' AND ?1 = ?1 AND ?2 = ?2",
  "CREATE INDEX temp.gc_ok_config ON gc_ok(config)",
  "CREATE TEMP TABLE gc_kept AS SELECT task, config, codegen FROM winner"
  "  UNION SELECT p.task, p.config, o.codegen FROM pin p JOIN gc_ok o ON o.task = p.task AND o.config = p.config"
  "  WHERE p.active",
  "CREATE TEMP TABLE gc_rank AS SELECT task, config, codegen, newest,"
  "  row_number() OVER (PARTITION BY task, codegen ORDER BY cost_ns, predicted_ns, uid) AS place"
  "  FROM gc_ok WHERE place = 1",
  "CREATE TEMP TABLE gc_doomed(id INTEGER PRIMARY KEY)",
  "INSERT INTO gc_doomed SELECT o.id FROM gc_ok o JOIN gc_rank g"
  "  ON g.task = o.task AND g.config = o.config AND g.codegen = o.codegen"
  "  WHERE ((g.newest < ?1 OR g.place > ?2)"
  "    AND NOT EXISTS(SELECT 1 FROM gc_kept w WHERE w.task = o.task AND w.config = o.config AND w.codegen = o.codegen))"
  "  OR (o.place > 1 AND (o.time < ?1 OR o.place > ?2))",
  /* A wrong result is never forgotten; a crash or hang not while its config has times. */
  "INSERT OR IGNORE INTO gc_doomed SELECT f.id FROM (SELECT id, config, status, time,"
  "    row_number() OVER (PARTITION BY task, codegen ORDER BY time DESC, uid) AS place"
  "    FROM trial WHERE status NOT IN ('ok', 'wrong')) f"
  "  WHERE (f.time < ?1 OR f.place > ?2) AND NOT (f.status IN " AT_BAD
  "    AND EXISTS(SELECT 1 FROM gc_ok o WHERE o.config = f.config AND o.id NOT IN gc_doomed))",
};

static int run_sql(at_db *db, const char *sql, int64_t a, int64_t b, int64_t *changed) {
  sqlite3_stmt *st;
  int rc = sqlite3_prepare_v2(db->h, sql, -1, &st, NULL);
  if (rc) return rc;
  if (sqlite3_bind_parameter_count(st) > 0) sqlite3_bind_int64(st, 1, a);
  if (sqlite3_bind_parameter_count(st) > 1) sqlite3_bind_int64(st, 2, b);
  rc = sqlite3_step(st);
  int end = sqlite3_finalize(st);
  if (end) return end;
  if (changed) *changed = sqlite3_changes(db->h);
  return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int collect(at_db *db, void *arg) {
  collection *c = arg;
  const at_gc *how = c->how;
  int64_t now = at_now_us(), day = INT64_C(86400) * 1000000;
  int64_t before = how->older_than_s > 0 ? now - how->older_than_s * 1000000 : INT64_MIN;
  int64_t keep = how->keep > 0 ? how->keep : INT64_MAX;
  at_gc_result *r = &c->result;
  int rc = SQLITE_OK;
  for (int i = 0; i < IR_COUNT(steps) && !rc; i++) rc = run_sql(db, steps[i], before, keep, NULL);
  if (!rc) rc = run_sql(db, "DELETE FROM trial WHERE id IN gc_doomed", 0, 0, &r->trials);
  /* A run without trials may just have begun. */
  if (!rc) rc = run_sql(db, "DELETE FROM run WHERE stamp < ?1 AND id NOT IN (SELECT run FROM trial)", now - day, 0, &r->runs);
  if (!rc) rc = run_sql(db, "DELETE FROM pin WHERE NOT active AND stamp < ?1", before, 0, NULL);
  if (!rc) rc = run_sql(db, "DELETE FROM config WHERE id NOT IN (SELECT config FROM trial)"
                            " AND id NOT IN (SELECT config FROM pin)", 0, 0, &r->configs);
  if (!rc) rc = run_sql(db, "DELETE FROM task WHERE id NOT IN (SELECT task FROM trial)"
                            " AND id NOT IN (SELECT task FROM pin)", 0, 0, NULL);
  if (!rc) rc = run_sql(db, "DELETE FROM workload WHERE id NOT IN (SELECT workload FROM task)", 0, 0, &r->workloads);
  if (!rc) rc = run_sql(db, "DELETE FROM environment WHERE id NOT IN (SELECT environment FROM run)", 0, 0, NULL);
  if (!rc && how->object_bytes >= 0)
    rc = run_sql(db, "DELETE FROM object WHERE key IN (SELECT key FROM (SELECT key,"
                     " sum(length(bytes)) OVER (ORDER BY time DESC, key) AS so_far FROM object) WHERE so_far > ?1)",
                 how->object_bytes, 0, &r->objects);
  static const char *const temporary[] = {"gc_ok", "gc_kept", "gc_rank", "gc_doomed"};
  for (int i = 0; i < IR_COUNT(temporary) && !rc; i++) {
    char sql[64];
    snprintf(sql, sizeof sql, "DROP TABLE temp.%s", temporary[i]);
    rc = run_sql(db, sql, 0, 0, NULL);
  }
  r->trials_left = at_db_int(db, "SELECT count(*) FROM trial", 0);
  return rc ? rc : how->dry_run ? SQLITE_ABORT : SQLITE_OK;
}

at_gc_result at_store_gc(at_store *s, const at_gc *how) {
  collection c = {.how = how};
  at_db *db = at_store_mine(s) ? at_store_main(s) : NULL;
  if (!db) return c.result;
  if (!db->writable) {
    at_store_complain(s, db, SQLITE_READONLY, "is read-only; nothing was deleted");
    return c.result;
  }
  int rc = at_db_write(db, collect, &c);
  if (rc && !(how->dry_run && rc == SQLITE_ABORT)) {
    at_store_complain(s, db, rc, at_code_text(rc));
    return (at_gc_result){0};
  }
  /* Gives the space back; not while somebody else reads, and then next time will do. */
  if (!rc && c.result.trials + c.result.objects > 0) sqlite3_exec(db->h, "VACUUM", NULL, NULL, NULL);
  return c.result;
}
