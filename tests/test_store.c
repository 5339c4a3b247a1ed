/* The tuning store: what goes in comes out, in any order of merging. */
#include "tests/store_help.h"
#include <sys/wait.h>

TestSuite(store, .init = start, .fini = stop, .timeout = 120);

/* ---- rows ---- */

Test(store, hash_is_blake2b) {
  char uid[AT_UID + 1];
  at_hasher h;
  at_hash_start(&h);
  at_hash_bytes(&h, "abc", 3);
  at_hash_end(&h, uid);
  same_text(uid, "cf4ab791c62b8d2b2109c90275287816");
  at_hash_start(&h);
  for (int i = 0; i < 1000; i++) at_hash_bytes(&h, &(unsigned char){(unsigned char)i}, 1);
  at_hash_end(&h, uid);
  same_text(uid, "978a3f8b45508a42fe7f0f99caf2c423");
}

/* The description of the tables is that of the schema. */
static void tables_agree(void) {
  at_store *s = at_store_open(ctx, ":memory:", 0);
  for (int i = 0; i < AT_TABLES; i++) {
    const at_table *t = &at_tables[i];
    for (int k = 0; k < t->ncols; k++) {
      const char *type = t->cols[k].kind == AT_REAL ? "REAL"
                         : t->cols[k].kind == AT_INT || t->cols[k].kind == AT_REF ? "INTEGER" : "TEXT";
      const char *sql = ir_format(ctx, "SELECT count(*) FROM pragma_table_info('%s') WHERE name='%s' AND type='%s'",
                                  t->name, t->cols[k].name, type);
      cr_assert_eq(count(s, sql), 1, "%s.%s %s", t->name, t->cols[k].name, type);
    }
    const char *sql = ir_format(ctx, "SELECT count(*) FROM pragma_table_info('%s')", t->name);
    cr_assert_eq(count(s, sql), at_row_columns((at_table_id)i), "%s", t->name);
  }
}
Test(store, tables_agree_with_schema) { OK(tables_agree); }

static void add_and_ask(void) {
  at_store *s = at_store_open(ctx, at("a/b/c.db"), 0);
  same_text(at_store_trouble(s), "");
  cr_assert_eq(count(s, "PRAGMA application_id"), AT_APPLICATION_ID);
  cr_assert_eq(count(s, "PRAGMA user_version"), AT_SCHEMA_VERSION);
  same_text(best(s, "k1"), "(none)");
  at_run_info info = {.seed = UINT64_MAX, .budget_s = 60, .label = "tune k1"};
  at_env_read(ctx, &info.env);
  info.env.target = "cpu";
  cr_assert(info.env.kernel[0]);
  at_run *run = at_run_begin(s, &info);
  at_trial t[] = {trial("k1", "tile 8", 300), trial("k1", "tile 16", 200), failure("k1", "tile 32", AT_REFUSED, "no \xff registers"),
                  trial("k2", "tile 8", 50)};
  t[1].predicted_ns = 190;
  at_store_add_trials(s, run, t, 3);
  cr_assert_eq(count(s, "SELECT count(*) FROM run WHERE ended=0"), 1);
  at_run_end(s, run, &t[3], 1); /* its last batch comes with the end */
  cr_assert_eq(count(s, "SELECT count(*) FROM trial WHERE seq=3"), 1);
  at_winner w;
  at_key k = key("k1");
  cr_assert(at_store_best(s, &k, &w));
  same_text(w.schedule, "tile 16");
  cr_assert(!w.pinned && !w.stale && !w.shared && w.n == 3 && w.time_us > 0 && strlen(w.uid) == AT_UID);
  cr_assert(w.median_ns == 201 && w.min_ns == 200 && w.mad_ns == 1 && w.predicted_ns == 190);
  cr_assert(fabs(w.cost_ns - 201 * 1.05) < 1e-9);
  same_text(w.codegen, "cg1");
  same_text(best(s, "k2"), "tile 8");
  at_key other = k;
  other.target = "gpu";
  cr_assert(!at_store_best(s, &other, &w));
  other = k;
  other.policy = "cold";
  cr_assert(!at_store_best(s, &other, &w));
  cr_assert_eq(count(s, "SELECT count(*) FROM run WHERE ended>=started AND seed=-1 AND budget_s=60"), 1);
  /* Another code generator: the old winner is known, but not trusted. */
  other = k;
  other.codegen = "cg2";
  cr_assert(at_store_best(s, &other, &w) && w.stale);
  same_text(w.schedule, "tile 16");
  /* Closed and opened again it is all still there. */
  at_store_close(s);
  s = at_store_open(ctx, at("a/b/c.db"), AT_STORE_READONLY);
  same_text(best(s, "k1"), "tile 16");
  int n;
  at_seen *seen = at_store_seen(s, &k, &n);
  cr_assert_eq(n, 3);
  same_text(seen[0].schedule, "tile 16");
  cr_assert(seen[0].median_ns == 201 && at_seen_find(seen, n, "tile 32")->status == AT_REFUSED);
  cr_assert(!at_seen_find(seen, n, "tile 64") && isnan(at_seen_find(seen, n, "tile 32")->cost_ns));
  cr_assert_eq(count(s, "SELECT count(*) FROM trial WHERE reason='no ? registers'"), 1);
}
Test(store, add_and_ask) {
  OK(add_and_ask);
  same_text(said, "");
}

static void winner_rules(void) {
  at_store *s = at_store_open(ctx, at("w.db"), 0);
  double lucky = 90, well[30], later[30];
  for (int i = 0; i < 30; i++) {
    well[i] = 100 + i % 3;
    later[i] = 140;
  }
  at_trial a = trial("k", "A", 0), b = trial("k", "B", 0);
  a.samples = &lucky;
  a.n = 1;
  at_store_add_trials(s, NULL, &a, 1);
  same_text(best(s, "k"), "A");
  /* 90 + 10 % for a single sample is dearer than what it takes to beat B at 98. */
  b.samples = (double[]){98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98};
  b.n = 15;
  at_store_add_trials(s, NULL, &b, 1);
  same_text(best(s, "k"), "B");
  /* The well-founded time of A counts, not its lucky one. */
  a.samples = well;
  a.n = 30;
  at_store_add_trials(s, NULL, &a, 1);
  same_text(best(s, "k"), "B");
  /* Timed again later with as many samples: the later counts. */
  b.samples = later;
  b.n = 30;
  at_store_add_trials(s, NULL, &b, 1);
  same_text(best(s, "k"), "A");
  cr_assert_eq(count(s, "SELECT count(*) FROM winner"), 1);
  cr_assert_eq(count(s, "SELECT count(*) FROM winner WHERE schedule='A' AND n=30"), 1);
  /* Wrong once, even under another policy: never again. */
  at_trial bad = failure("k", "A", AT_WRONG, "differs");
  bad.key.policy = "cold";
  at_store_add_trials(s, NULL, &bad, 1);
  same_text(best(s, "k"), "B");
  cr_assert_eq(count(s, "SELECT count(*) FROM winner WHERE schedule='B'"), 1);
  bad = failure("k", "B", AT_NOISY, "load");
  at_store_add_trials(s, NULL, &bad, 1);
  same_text(best(s, "k"), "B");
  bad = failure("k", "B", AT_CRASH, "signal 11");
  at_store_add_trials(s, NULL, &bad, 1);
  same_text(best(s, "k"), "(none)");
  cr_assert_eq(count(s, "SELECT count(*) FROM winner"), 0);
  /* A later generator made A right again; the older one's verdict is its own. */
  at_trial c = trial("k", "A", 500);
  c.key.codegen = "cg2";
  at_store_add_trials(s, NULL, &c, 1);
  at_key k = key("k");
  k.codegen = "cg2";
  at_winner w;
  cr_assert(at_store_best(s, &k, &w) && !w.stale);
  same_text(w.schedule, "A");
  /* And what the present one found wrong is no stale winner of the past. */
  at_key k3 = key("k3");
  c = trial("k3", "A", 10);
  at_store_add_trials(s, NULL, &c, 1);
  k3.codegen = "cg2";
  cr_assert(at_store_best(s, &k3, &w) && w.stale);
  bad = failure("k3", "A", AT_HANG, "2 s");
  bad.key.codegen = "cg2";
  at_store_add_trials(s, NULL, &bad, 1);
  cr_assert(!at_store_best(s, &k3, &w));
  int n;
  k = key("k");
  at_seen *seen = at_store_seen(s, &k, &n);
  cr_assert(n == 2 && seen[1].status == AT_CRASH && seen[1].trials == 4 && seen[1].median_ns == 140);
}
Test(store, winner_rules) { OK(winner_rules); }

/* The look-up walks the index and stops; it never sorts. */
static void lookup_plan(void) {
  at_store *s = at_store_open(ctx, ":memory:", 0);
  int rc;
  sqlite3_stmt *best_st = at_db_st(&s->memory, AT_S_BEST, &rc), *st;
  const char *sql = ir_format(ctx, "EXPLAIN QUERY PLAN %s", sqlite3_sql(best_st));
  cr_assert_eq(sqlite3_prepare_v2(s->memory.h, sql, -1, &st, NULL), SQLITE_OK);
  int index = 0;
  while (sqlite3_step(st) == SQLITE_ROW) {
    const char *step = (const char *)sqlite3_column_text(st, 3);
    cr_assert(!strstr(step, "TEMP B-TREE") && !strstr(step, "SCAN"), "%s", step);
    index += strstr(step, "SEARCH t USING INDEX trial_rank") != NULL;
  }
  cr_assert_eq(index, 1);
  sqlite3_finalize(st);
}
Test(store, lookup_plan) { OK(lookup_plan); }

static void pins(void) {
  at_store *s = at_store_open(ctx, at("p.db"), 0);
  at_trial t[] = {trial("k", "A", 100), trial("k", "B", 200)};
  at_store_add_trials(s, NULL, t, 2);
  at_key k = key("k");
  at_winner w;
  cr_assert(!at_store_unpin(s, &k));
  at_store_pin(s, &k, NULL, NULL, "B", "B has smaller code");
  cr_assert(at_store_best(s, &k, &w) && w.pinned && w.median_ns == 201 && !w.stale);
  same_text(w.schedule, "B");
  at_store_pin(s, &k, NULL, NULL, "never timed", NULL);
  cr_assert(at_store_best(s, &k, &w) && w.pinned && w.n == 0 && isnan(w.median_ns) && !w.uid[0]);
  same_text(w.schedule, "never timed");
  cr_assert_eq(count(s, "SELECT count(*) FROM pin"), 1);
  cr_assert(at_store_unpin(s, &k) && !at_store_unpin(s, &k));
  same_text(best(s, "k"), "A");
  cr_assert_eq(count(s, "SELECT count(*) FROM workload WHERE name='k' AND class='gemm'"), 1);
}
Test(store, pins) { OK(pins); }

static void objects(void) {
  at_store *s = at_store_open(ctx, at("o.db"), 0);
  size_t n;
  cr_assert(!at_store_object_get(s, "key", &n));
  at_store_object_put(s, "key", "\0bytes", 6);
  at_store_object_put(s, "empty", NULL, 0);
  const void *p = at_store_object_get(s, "key", &n);
  cr_assert(p && n == 6 && !memcmp(p, "\0bytes", 6));
  cr_assert(at_store_object_get(s, "empty", &n) && n == 0);
  sqlite3_exec(s->file.h, "UPDATE object SET bytes=x'00'", NULL, NULL, NULL);
  cr_assert(!at_store_object_get(s, "key", &n));
  cr_assert(strstr(said, "damaged"));
}
Test(store, objects) { OK(objects); }

/* ---- iteration ---- */

static bool only_one(void *user, const at_record *r) {
  (void)r;
  ++*(int *)user;
  return false;
}
static bool throw_up(void *user, const at_record *r) {
  (void)user;
  ir_fail(ctx, TN_EUSAGE, "thrown from %s", r->schedule);
}
static int winners_seen;
static bool see_winner(void *user, const at_key *k, const char *klass, const char *name, const at_winner *w) {
  same_text(klass, "gemm");
  same_text(k->kernel, name);
  same_text(w->schedule, ir_format(ctx, "best of %s", name));
  cr_assert(!w->stale);
  winners_seen++;
  (void)user;
  return true;
}
static at_store *store;
static void throwing(void) { at_store_each_trial(store, NULL, throw_up, NULL); }

static void iterate(void) {
  at_store *s = store = at_store_open(ctx, at("i.db"), 0);
  for (int i = 0; i < 5; i++) {
    const char *kernel = ir_format(ctx, "k%d", i);
    at_trial t[] = {trial(kernel, ir_format(ctx, "best of k%d", i), 10), trial(kernel, "other", 100),
                    failure(kernel, "fails", AT_OOM, "1 GB")};
    at_store_add_trials(s, NULL, t, 3);
  }
  double sum = 0;
  cr_assert_eq(at_store_each_trial(s, NULL, add_up, &sum), 15);
  cr_assert(sum == 5 * (12 + 102));
  cr_assert_eq(at_store_each_trial(s, &(at_filter){.kernel = "k3", .policy = "warm"}, add_up, &sum), 3);
  cr_assert_eq(at_store_each_trial(s, &(at_filter){.klass = "gemm", .ok_only = true, .codegen = "cg1"}, add_up, &sum), 10);
  cr_assert_eq(at_store_each_trial(s, &(at_filter){.target = "gpu"}, add_up, &sum), 0);
  int calls = 0;
  at_store_each_trial(s, NULL, only_one, &calls);
  cr_assert_eq(calls, 1);
  cr_assert_eq(at_store_each_winner(s, &(at_filter){.klass = "gemm", .codegen = "cg1"}, see_winner, NULL), 5);
  cr_assert_eq(at_store_each_winner(s, NULL, see_winner, NULL), 5);
  cr_assert_eq(winners_seen, 10);
  /* A callback may throw: nothing stays locked. */
  cr_assert_eq(protect(throwing), TN_EUSAGE);
  at_trial t = trial("k", "after", 1);
  at_store_add_trials(s, NULL, &t, 1);
  same_text(at_store_trouble(s), "");
}
Test(store, iterate) { OK(iterate); }

/* ---- merge, export, import ---- */

static void merge_commutes(void) {
  at_store *a = at_store_open(ctx, at("a.db"), 0), *b = at_store_open(ctx, at("b.db"), 0);
  fill(a, 0, 20);
  fill(b, 10, 40);
  at_key k = key(odd_kernel(3));
  at_store_pin(a, &k, "conv", "named by a", "pin of a", NULL);
  at_store_pin(b, &k, "conv", "named by b", "pin of b", "later");
  at_run *run = at_run_begin(b, &(at_run_info){.seed = 3});
  at_trial more = trial("k1", "tile 8", 300);
  at_store_add_trials(b, run, &more, 1);
  at_store *ab = at_store_open(ctx, at("ab.db"), 0), *ba = at_store_open(ctx, at("ba.db"), 0);
  at_tally t = at_store_merge(ab, at("a.db"));
  cr_assert(t.added == t.read && t.damaged == 0 && t.read > 40);
  at_store_merge(ab, at("b.db"));
  at_store_merge(ba, at("b.db"));
  at_store_merge(ba, at("a.db"));
  const char *text = export_text(ab);
  same_text(export_text(ba), text);
  cr_assert_eq(count(ab, "SELECT count(*) FROM trial"), 101);
  same_text(best(ab, k.kernel), "pin of b");
  cr_assert_eq(count(ab, "SELECT count(*) FROM workload WHERE name='named by b'"), 1);
  /* Twice is once. */
  t = at_store_merge(ab, at("a.db"));
  cr_assert(t.added == 0 && t.damaged == 0 && t.read > 0, "%d", (int)t.added);
  at_store_merge(ab, at("ba.db"));
  at_store_merge(ab, at("ab.db"));
  same_text(export_text(ab), text);
  /* What changes later arrives by merging again: the run's end, the pin taken back. */
  at_run_end(b, run, NULL, 0);
  at_store_unpin(b, &k);
  t = at_store_merge(ab, at("b.db"));
  cr_assert_eq(t.added, 2);
  t = at_store_merge(ab, at("a.db"));
  cr_assert_eq(t.added, 0);
  cr_assert(strcmp(best(ab, k.kernel), "pin of b") && strcmp(best(ab, k.kernel), "pin of a"));
  cr_assert_eq(at_store_verify(ab, false, NULL, NULL).damaged, 0);
}
Test(store, merge_commutes) { OK(merge_commutes); }

static void export_import(void) {
  at_store *a = at_store_open(ctx, at("a.db"), 0);
  fill(a, 0, 300);
  at_trial t = trial("weird \x7f", "", 1.0 / 3);
  double many[200];
  for (int i = 0; i < 200; i++) many[i] = 1e-3 + i * 1234.56789012345;
  t.samples = many;
  t.n = 200;
  t.predicted_ns = 1e300;
  at_store_add_trials(a, NULL, &t, 1);
  const char *text = export_text(a);
  at_store *b = at_store_open(ctx, at("b.db"), 0);
  FILE *f = fmemopen((void *)text, strlen(text), "r");
  at_tally tally = at_store_import(b, f, "text");
  fclose(f);
  cr_assert_eq(tally.damaged, 0, "%s", said);
  cr_assert_eq(tally.added, tally.read);
  same_text(export_text(b), text);
  /* Damaged lines are named and skipped; what refers to them is skipped with them. */
  char *bad = ir_strdup(ctx, text);
  char *line = strstr(bad, "\"table\":\"trial\"");
  char *digit = strstr(line, "\"n\":3");
  digit[4] = '4';
  at_store *c = at_store_open(ctx, at("c.db"), 0);
  f = fmemopen(bad, strlen(bad), "r");
  at_tally less = at_store_import(c, f, "text");
  fclose(f);
  cr_assert_eq(less.damaged, 1);
  cr_assert_eq(less.added, tally.added - 1);
  cr_assert(strstr(said, "does not match its hash"));
  cr_assert_eq(at_store_verify(c, false, NULL, NULL).damaged, 0);
}
Test(store, export_import) { OK(export_import); }

static const char *import_this;
static void import_now(void) {
  FILE *f = fmemopen((void *)import_this, strlen(import_this), "r");
  at_tally t = at_store_import(store, f, "text");
  fclose(f);
  cr_assert_eq(t.added, 0);
  if (t.read != t.damaged) ir_fail(ctx, TN_EINTERNAL, "a bad line passed");
}
static void open_memory(void) { store = at_store_open(ctx, ":memory:", 0); }
Test(store, import_of_rubbish) {
  OK(open_memory);
  import_this = "{\"tenon\":\"tuning store\",\"schema\":1}\n\n \n";
  OK(import_now);
  const char *const refused[] = {"hello", "\n\n", "{}", "{\"table\":\"trial\"}", "{\"tenon\":\"tuning store\",\"schema\":99}"};
  for (int i = 0; i < IR_COUNT(refused); i++) {
    import_this = refused[i];
    cr_assert_eq(protect(import_now), TN_EINPUT, "%s", refused[i]);
  }
  const char *const lines[] = {
      "{", "}", "[]", "{\"table\":\"config\"", "{\"table\":\"nothing\",\"uid\":\"\"}", "{\"table\":12}",
      "{\"table\":\"config\",\"uid\":\"0123\",\"schedule\":\"x\"}",
      "{\"table\":\"config\",\"uid\":\"00000000000000000000000000000000\",\"schedule\":\"x\"}",
      "{\"table\":\"config\",\"uid\":\"00000000000000000000000000000000\",\"schedule\":\"\\u00\"}",
      "{\"table\":\"config\",\"uid\":\"00000000000000000000000000000000\",\"schedule\":\"\\u0000\"}",
      "{\"table\":\"config\",\"uid\":\"00000000000000000000000000000000\",\"schedule\":\"\\ud800\\",
      "{\"table\":\"config\",\"uid\":\"00000000000000000000000000000000\",\"schedule\":[1,2,]}",
      "{\"table\":\"config\" \"uid\":\"00\"}", "{\"\\", "{\"a\":1e999}", "{\"a\":[[1]]}", "{\"a\":-}", "{\"a\":nul}"};
  for (int i = 0; i < IR_COUNT(lines); i++) {
    import_this = ir_format(ctx, "{\"tenon\":\"tuning store\",\"schema\":1}\n%s\n", lines[i]);
    OK(import_now);
  }
  cr_assert_eq(count(store, "SELECT count(*) FROM config"), 0);
}

/* ---- layers ---- */

static void shared_stores(void) {
  at_store *site = at_store_open(ctx, at("site.db"), 0);
  at_trial t[] = {trial("k", "of the site", 10), trial("only", "there", 10), trial("bad", "broken", 10), trial("bad", "fine", 20)};
  at_store_add_trials(site, NULL, t, 4);
  at_key pinned = key("pinned");
  at_store_pin(site, &pinned, "gemm", "pinned", "site's choice", NULL);
  at_store_close(site);
  setenv("TENON_DB_SHARED", at("site.db"), 1);
  at_store *s = at_store_open(ctx, at("mine.db"), 0);
  at_key k = key("only");
  at_winner w;
  cr_assert(at_store_best(s, &k, &w) && w.shared);
  same_text(w.schedule, "there");
  same_text(best(s, "k"), "of the site");
  at_trial mine = trial("k", "mine", 99);
  at_store_add_trials(s, NULL, &mine, 1);
  same_text(best(s, "k"), "mine"); /* private rows go first */
  mine = failure("bad", "broken", AT_WRONG, "differs here");
  at_store_add_trials(s, NULL, &mine, 1);
  same_text(best(s, "bad"), "fine");
  same_text(best(s, "pinned"), "site's choice");
  cr_assert(at_store_unpin(s, &pinned));
  same_text(best(s, "pinned"), "(none)");
  int n;
  k = key("k");
  at_store_seen(s, &k, &n);
  cr_assert_eq(n, 2);
  double sum = 0;
  cr_assert_eq(at_store_each_trial(s, NULL, add_up, &sum), 6);
  at_store_merge(s, at("site.db")); /* now in both: still one of each */
  cr_assert_eq(at_store_each_trial(s, NULL, add_up, &sum), 6);
  cr_assert_eq(count(s, "SELECT count(*) FROM trial"), 6);
  cr_assert(!at_store_add_shared(s, at("missing.db")));
  cr_assert(strstr(said, "missing.db"));
}
Test(store, shared_stores) { OK(shared_stores); }

static void no_store(void) {
  cr_assert_null(at_store_open(ctx, "none", 0));
  setenv("TENON_DB", "none", 1);
  cr_assert_null(at_store_open(ctx, NULL, 0));
  cr_assert_null(at_store_default_path(ctx));
  same_text(best(NULL, "k"), "(none)");
  at_trial t = trial("k", "A", 1);
  at_store_add_trials(NULL, NULL, &t, 1);
  at_run_end(NULL, at_run_begin(NULL, &(at_run_info){.seed = 1}), NULL, 0);
  size_t size;
  cr_assert_null(at_store_object_get(NULL, "k", &size));
  cr_assert_eq(at_store_each_trial(NULL, NULL, only_one, NULL), 0);
  at_store_close(NULL);
  setenv("TENON_DB", at("env.db"), 1);
  same_text(at_store_default_path(ctx), at("env.db"));
  unsetenv("TENON_DB");
  setenv("XDG_CACHE_HOME", dir, 1);
  same_text(at_store_default_path(ctx), at("tenon/tenon.db"));
  setenv("XDG_CACHE_HOME", "relative", 1);
  setenv("HOME", dir, 1);
  same_text(at_store_default_path(ctx), at(".cache/tenon/tenon.db"));
  /* Only looking something up makes no file and no noise. */
  at_store *s = at_store_open(ctx, at("not there.db"), AT_STORE_READONLY);
  same_text(best(s, "k"), "(none)");
  cr_assert(access(at("not there.db"), F_OK) && !said[0]);
  at_store_add_trials(s, NULL, &t, 1); /* kept for this run */
  same_text(best(s, "k"), "A");
  at_store_close(s);
  same_text(best(s, "k"), "(none)"); /* a closed store is a miss */
  unsetenv("HOME");
  s = at_store_open(ctx, NULL, 0);
  at_store_add_trials(s, NULL, &t, 1);
  same_text(best(s, "k"), "A");
  cr_assert(strstr(said, "has no place"));
}
Test(store, no_store) { OK(no_store); }

static void forked(void) {
  at_store *s = at_store_open(ctx, at("f.db"), 0);
  at_trial t = trial("k", "A", 1);
  at_store_add_trials(s, NULL, &t, 1);
  pid_t child = fork();
  if (child == 0) { /* neither reads nor releases what is its parent's */
    bool miss = !strcmp(best(s, "k"), "(none)");
    at_store_add_trials(s, NULL, &t, 1);
    tn_ctx_free(ctx);
    _exit(miss ? 0 : 1);
  }
  int status;
  waitpid(child, &status, 0);
  cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  same_text(best(s, "k"), "A");
  cr_assert_eq(count(s, "SELECT count(*) FROM trial"), 1);
}
Test(store, forked_child_stays_away) { OK(forked); }

/* ---- gc ---- */

static void collect(void) {
  at_store *s = at_store_open(ctx, at("g.db"), 0);
  int64_t now = at_now_us(), day = INT64_C(86400) * 1000000;
  for (int i = 0; i < 20; i++) {
    at_trial t = trial("k", ir_format(ctx, "s%02d", i), 100 + i);
    t.time_us = now - (20 - i) * day;
    at_trial f = failure("k", ir_format(ctx, "f%02d", i), i == 0 ? AT_WRONG : AT_REFUSED, "no");
    f.time_us = t.time_us;
    at_store_add_trials(s, NULL, &t, 1);
    at_store_add_trials(s, NULL, &f, 1);
  }
  /* A lucky probe of s15, superseded by its well-founded time. */
  double lucky = 1, slow[30];
  for (int i = 0; i < 30; i++) slow[i] = 500;
  at_trial t = trial("k", "s15", 0);
  t.samples = slow;
  t.n = 30;
  t.time_us = now - 30 * day;
  at_store_add_trials(s, NULL, &t, 1);
  t.samples = &lucky;
  t.n = 1;
  t.time_us = now;
  at_store_add_trials(s, NULL, &t, 1);
  same_text(best(s, "k"), "s00");
  at_key k = key("k");
  at_store_object_put(s, "old", "1234567890", 10);
  at_store_object_put(s, "new", "1234567890", 10);
  at_gc_result r = at_store_gc(s, &(at_gc){.keep = 3, .object_bytes = -1, .dry_run = true});
  cr_assert(r.trials > 20 && count(s, "SELECT count(*) FROM trial") == 42);
  at_gc_result again = at_store_gc(s, &(at_gc){.keep = 3, .object_bytes = 10});
  cr_assert_eq(again.trials, r.trials);
  cr_assert_eq(again.objects, 1);
  same_text(best(s, "k"), "s00");
  cr_assert_eq(count(s, "SELECT count(*) FROM trial WHERE status='ok'"), 3);
  cr_assert_eq(count(s, "SELECT count(*) FROM trial WHERE status='refused'"), 3);
  cr_assert_eq(count(s, "SELECT count(*) FROM trial WHERE status='wrong'"), 1);
  at_store_pin(s, &k, NULL, NULL, "s01", NULL);
  r = at_store_gc(s, &(at_gc){.older_than_s = 3600, .object_bytes = -1});
  cr_assert_eq(count(s, "SELECT count(*) FROM trial WHERE status='ok'"), 2); /* the winner and the pinned one */
  cr_assert_eq(r.trials_left, 3);
  at_store_unpin(s, &k);
  same_text(best(s, "k"), "s00");
  cr_assert_eq(count(s, "SELECT count(*) FROM config WHERE schedule='s02'"), 0);
  cr_assert_eq(at_store_verify(s, false, NULL, NULL).damaged, 0);
}
Test(store, gc) { OK(collect); }

/* By age alone a config goes whole: its lucky new probe must not outlive its old time. */
static void collect_by_age(void) {
  at_store *s = at_store_open(ctx, at("g.db"), 0);
  int64_t now = at_now_us(), day = INT64_C(86400) * 1000000;
  double lucky = 1, slow[30];
  for (int i = 0; i < 30; i++) slow[i] = 500;
  at_trial t = trial("k", "unstable", 0), w = trial("k", "winner", 100);
  t.samples = slow;
  t.n = 30;
  t.time_us = now - 30 * day;
  at_store_add_trials(s, NULL, &t, 1);
  t.samples = &lucky;
  t.n = 1;
  t.time_us = now;
  at_store_add_trials(s, NULL, &t, 1);
  at_store_add_trials(s, NULL, &w, 1);
  at_store_gc(s, &(at_gc){.older_than_s = 3600, .object_bytes = -1});
  same_text(best(s, "k"), "winner");
}
Test(store, gc_by_age) { OK(collect_by_age); }

/* ---- command line ---- */

static char *answer;
static int db(const char *words) {
  char *argv[32], *copy = ir_strdup(ctx, words), *rest = copy;
  int argc = 0;
  for (char *w; (w = strtok_r(rest, " ", &rest));) argv[argc++] = w;
  size_t n;
  free(answer);
  FILE *f = open_memstream(&answer, &n);
  int rc = at_db_main(ctx, argc, argv, f, false);
  fclose(f);
  return rc;
}

static void fill_cli(void) {
  at_store *s = at_store_open(ctx, at("cli.db"), 0);
  at_trial t[] = {trial("gemm:f32:8x8x8", "unroll i", 2000), trial("gemm:f32:8x8x8", "split i 4", 1000),
                  failure("gemm:f32:8x8x8", "split i 0", AT_REFUSED, "factor 0"), trial("conv:f32:n1", "x", 5e6)};
  t[0].origin = "default";
  at_store_add_trials(s, NULL, t, 4);
  at_store_close(s);
}

Test(store, command_line) {
  OK(fill_cli);
  setenv("TENON_DB", at("cli.db"), 1);
  cr_assert_eq(db("ls"), 0);
  cr_assert(strstr(answer, "gemm:f32:8x8x8") && strstr(answer, "+99.9%") && strstr(answer, "conv:f32:n1"), "%s", answer);
  cr_assert_eq(db("ls gemm --json"), 0);
  cr_assert(strstr(answer, "\"best_ns\":1001") && !strstr(answer, "conv:"), "%s", answer);
  cr_assert_eq(db("ls *:n1"), 0);
  cr_assert(!strstr(answer, "gemm"), "%s", answer);
  cr_assert_eq(db("show gemm"), 0);
  cr_assert(strstr(answer, "split i 4") && strstr(answer, "factor 0") && strstr(answer, "2.001 us"), "%s", answer);
  cr_assert_eq(db("show gemm --json"), 0);
  cr_assert(strstr(answer, "\"winner\":{") && strstr(answer, "\"count\":1"), "%s", answer);
  char config[9] = "";
  snprintf(config, sizeof config, "%s", strstr(strstr(answer, "\"top\""), "\"config\":\"") + 10);
  cr_assert_eq(db(ir_format(ctx, "export -o %s", at("out.jsonl"))), 0);
  cr_assert_eq(db(ir_format(ctx, "import %s --db %s", at("out.jsonl"), at("other.db"))), 0);
  cr_assert(strstr(answer, "0 damaged"), "%s", answer);
  cr_assert_eq(db(ir_format(ctx, "merge %s", at("other.db"))), 0);
  cr_assert(strstr(answer, " 0 new"), "%s", answer);
  cr_assert_eq(db(ir_format(ctx, "pin gemm --config %s --note why", config)), 0, "%s", ir_error(ctx));
  cr_assert_eq(db("pin"), 0);
  cr_assert(strstr(answer, "gemm:f32:8x8x8") && strstr(answer, "why"), "%s", answer);
  cr_assert_eq(db("ls"), 0);
  cr_assert(strstr(answer, "pinned"), "%s", answer);
  cr_assert_eq(db("unpin gemm"), 0);
  cr_assert_eq(db("verify"), 0);
  cr_assert(strstr(answer, "all is well"), "%s", answer);
  cr_assert_eq(db("gc --keep 1 --dry-run"), 0);
  cr_assert(strstr(answer, "would delete 1 trials"), "%s", answer);
  cr_assert_eq(db("path"), 0);
  same_text(answer, ir_format(ctx, "%s\n", at("cli.db")));
  cr_assert_eq(db("--help"), 0);
  cr_assert_eq(db(""), TN_EUSAGE);
  cr_assert_eq(db("list"), TN_EUSAGE);
  cr_assert_eq(db("gc"), TN_EUSAGE);
  cr_assert_eq(db("gc --keep few"), TN_EUSAGE);
  cr_assert_eq(db("show nothing"), TN_EUSAGE);
  cr_assert_eq(db("pin :f32: --config 0000"), TN_EUSAGE);
  cr_assert(strstr(ir_error(ctx), "2 kernels"), "%s", ir_error(ctx));
  cr_assert_eq(db(ir_format(ctx, "ls --db %s", at("missing.db"))), TN_ERESOURCE);
  setenv("TENON_DB", at("missing.db"), 1);
  cr_assert_eq(db("ls"), 0);
  cr_assert(strstr(answer, "nothing tuned yet"), "%s", answer);
  setenv("TENON_DB", at("cli.db"), 1);
  sqlite3 *h;
  sqlite3_open(at("cli.db"), &h);
  sqlite3_exec(h, "UPDATE trial SET seq=seq+1 WHERE status='refused'", NULL, NULL, NULL);
  sqlite3_close(h);
  cr_assert_eq(db("verify"), TN_EWRONG);
  cr_assert(strstr(answer, "does not match its hash"), "%s", answer);
  cr_assert_eq(db("verify --json --repair"), 0);
  cr_assert_eq(db("verify --json"), 0);
  cr_assert(strstr(answer, "\"ok\":true"), "%s", answer);
}

