/* The tuning store's file: nothing that happens to it is more than a miss. */
#include "tests/store_help.h"
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(store_files, .init = start, .fini = stop, .timeout = 120);

static at_store *store;

/* ---- files that are not what they should be ---- */

static void flip(const char *path, long at_byte, int bit) {
  FILE *f = fopen(path, "r+b");
  fseek(f, at_byte, SEEK_SET);
  int c = getc(f);
  fseek(f, at_byte, SEEK_SET);
  putc(c ^ 1 << bit, f);
  fclose(f);
}

static void damaged_row(void) {
  at_store *s = at_store_open(ctx, at("d.db"), 0);
  at_trial t[] = {trial("k", "A", 10), trial("k", "B", 20)};
  at_store_add_trials(s, NULL, t, 2);
  same_text(best(s, "k"), "A");
  sqlite3_exec(s->file.h, "UPDATE trial SET median_ns=1 WHERE cost_ns<15", NULL, NULL, NULL);
  same_text(best(s, "k"), "B"); /* A no longer matches its hash */
  cr_assert(strstr(said, "damaged rows"));
  sqlite3_exec(s->file.h, "UPDATE config SET schedule='C' WHERE schedule='B'", NULL, NULL, NULL);
  same_text(best(s, "k"), "(none)");
  cr_assert_eq(at_store_verify(s, false, NULL, NULL).damaged, 2);
  at_store *m = at_store_open(ctx, at("m.db"), 0);
  at_tally tally = at_store_merge(m, at("d.db"));
  cr_assert_eq(tally.damaged, 3); /* both, and the trial that refers to the config */
  cr_assert_eq(at_store_verify(m, false, NULL, NULL).damaged, 0);
  tally = at_store_verify(s, true, NULL, NULL);
  cr_assert_eq(tally.damaged, tally.added);
  cr_assert_eq(at_store_verify(s, false, NULL, NULL).damaged, 0);
}
Test(store_files, damaged_row) { OK(damaged_row); }

/* Every damage to the file is at most a miss: look-ups give the truth or nothing, and
 * what can be read can be merged. */
static void use_damaged(void) {
  at_store *s = at_store_open(ctx, at("x.db"), 0);
  for (int i = 0; i < 7; i++) {
    const char *kernel = odd_kernel(i);
    const char *b = best(s, kernel);
    cr_assert(!strcmp(b, "(none)") || !strncmp(b, "tile ", 5), "%s", b);
  }
  at_trial t = trial("new", "A", 1);
  at_store_add_trials(s, NULL, &t, 1);
  const char *b = best(s, "new");
  cr_assert(!strcmp(b, "A"), "%s", b);
  double sum = 0;
  at_store_each_trial(s, NULL, add_up, &sum);
  at_store_close(s);
}
static void merge_damaged(void) {
  store = at_store_open(ctx, at("y.db"), 0);
  at_store_merge(store, at("x.db"));
}
static int64_t copy_file(const char *from, const char *to) {
  FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
  int64_t n = 0;
  for (int c; (c = getc(in)) != EOF; n++) putc(c, out);
  fclose(in);
  fclose(out);
  return n;
}
static void fill_base(void) {
  at_store *s = at_store_open(ctx, at("base.db"), 0);
  fill(s, 0, 60);
  at_store_close(s);
}
Test(store_files, damaged_file) {
  OK(fill_base);
  uint64_t r = 12345;
  int64_t size = 0, saved = 0;
  for (int i = 0; i < 60; i++) {
    unlink(at("x.db-journal"));
    unlink(at("y.db"));
    size = copy_file(at("base.db"), at("x.db"));
    if (i == 0) cr_assert_eq(truncate(at("x.db"), 0), 0);
    else if (i < 12) cr_assert_eq(truncate(at("x.db"), size * i / 12), 0);
    else
      for (int k = 0; k < 1 + i % 20; k++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        flip(at("x.db"), (long)((r >> 20) % (uint64_t)(i < 20 ? 200 : size)), (int)(r >> 60) & 7);
      }
    tn_status st = protect(merge_damaged); /* before anything is written to it */
    cr_assert(st == TN_OK || st == TN_EINPUT || st == TN_ERESOURCE, "%s", ir_error(ctx));
    if (st == TN_OK) {
      cr_assert_eq(at_store_verify(store, false, NULL, NULL).damaged, 0);
      saved += count(store, "SELECT count(*) FROM trial");
    }
    OK(use_damaged);
    said[0] = 0;
  }
  cr_assert(saved > 60 * 60 / 2, "%d", (int)saved); /* of 60 * 120 */
}

static void strict_foreign(void) { at_store_open(ctx, at("foreign.db"), AT_STORE_STRICT); }
static void foreign_file(void) {
  sqlite3 *h;
  sqlite3_open(at("foreign.db"), &h);
  sqlite3_exec(h, "CREATE TABLE trial(x); INSERT INTO trial VALUES(1)", NULL, NULL, NULL);
  sqlite3_close(h);
  at_store *s = at_store_open(ctx, at("foreign.db"), 0);
  cr_assert(strstr(said, "another program"));
  at_trial t = trial("k", "A", 1);
  at_store_add_trials(s, NULL, &t, 1);
  same_text(best(s, "k"), "A");
  at_store_close(s);
  sqlite3_open(at("foreign.db"), &h);
  cr_assert_eq(sqlite3_exec(h, "SELECT x FROM trial", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(h);
  cr_assert_eq(protect(strict_foreign), TN_EINPUT);
}
Test(store_files, foreign_file) { OK(foreign_file); }

/* ---- files that cannot be written ---- */

static void read_only(void) {
  at_store *s = at_store_open(ctx, at("ro/r.db"), 0);
  at_trial t = trial("k", "A", 10);
  at_store_add_trials(s, NULL, &t, 1);
  at_store_close(s);
  /* The same in WAL mode, as a newer SQLite may leave it. */
  copy_file(at("ro/r.db"), at("ro/w.db"));
  sqlite3 *h;
  sqlite3_open(at("ro/w.db"), &h);
  sqlite3_exec(h, "PRAGMA journal_mode=WAL; UPDATE trial SET seq=seq", NULL, NULL, NULL);
  sqlite3_close(h);
  chmod(at("ro/r.db"), 0444);
  chmod(at("ro/w.db"), 0444);
  chmod(at("ro"), 0555);
  chmod(dir, 0755);
  if (geteuid() == 0) cr_assert_eq(seteuid(65534), 0); /* root may write anyway */
  for (int i = 0; i < 2; i++) {
    said[0] = 0;
    s = at_store_open(ctx, at(i ? "ro/w.db" : "ro/r.db"), 0);
    cr_assert(strstr(said, "not saved"), "%s", said);
    cr_assert(at_store_trouble(s)[0]);
    cr_assert(s->file.h, "%d: %s", i, said);
    same_text(best(s, "k"), "A");
    t = trial("k", "B", 5);
    at_store_add_trials(s, NULL, &t, 1);
    same_text(best(s, "k"), "B");
    at_store_close(s);
    said[0] = 0;
    s = at_store_open(ctx, at(i ? "ro/w.db" : "ro/r.db"), AT_STORE_READONLY);
    same_text(best(s, "k"), "A");
    same_text(said, "");
    at_store_close(s);
  }
  s = at_store_open(ctx, at("ro/new/t.db"), 0);
  cr_assert(strstr(said, "cannot be opened"), "%s", said);
  at_store_add_trials(s, NULL, &t, 1);
  same_text(best(s, "k"), "B");
  at_store_close(s);
  s = at_store_open(ctx, at("ro"), 0); /* a folder */
  cr_assert(strstr(said, "not a regular file"));
  same_text(best(s, "k"), "(none)");
  at_store_close(s);
  if (getuid() == 0) cr_assert_eq(seteuid(0), 0);
}
Test(store_files, read_only) { OK(read_only); }

static void full_disk(void) {
  at_store *s = at_store_open(ctx, at("full.db"), 0);
  fill(s, 0, 5);
  sqlite3_exec(s->file.h, ir_format(ctx, "PRAGMA max_page_count=%d", (int)count(s, "PRAGMA page_count") + 1), NULL, NULL, NULL);
  fill(s, 5, 60);
  cr_assert(strstr(said, "disk is full"), "%s", said);
  cr_assert(strstr(at_store_trouble(s), "disk is full"));
  char *first = strstr(said, "disk is full");
  cr_assert(!strstr(first + 1, "disk is full")); /* said once */
  int64_t in_file = count(s, "SELECT count(*) FROM trial");
  cr_assert(in_file >= 10 && in_file < 120);
  double sum = 0;
  cr_assert_eq(at_store_each_trial(s, NULL, add_up, &sum), 120);
  same_text(best(s, odd_kernel(6)), "tile 6");
  cr_assert_eq(at_db_int(&s->file, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check='ok'", 0), 1);
  /* There is room again: what waited goes to the file with the next batch. */
  sqlite3_exec(s->file.h, "PRAGMA max_page_count=100000", NULL, NULL, NULL);
  s->retry_us = 0;
  fill(s, 60, 61);
  same_text(at_store_trouble(s), "");
  cr_assert_eq(count(s, "SELECT count(*) FROM trial"), 122);
  cr_assert_eq(at_store_verify(s, false, NULL, NULL).damaged, 0);
  /* Full until the end: closing says what is lost. */
  sqlite3_exec(s->file.h, ir_format(ctx, "PRAGMA max_page_count=%d", (int)count(s, "PRAGMA page_count")), NULL, NULL, NULL);
  fill(s, 61, 200);
  at_store_close(s);
  cr_assert(strstr(said, "are lost"), "%s", said);
}
Test(store_files, full_disk) { OK(full_disk); }

/* Somebody stopped while holding the lock: a look-up gives up soon, a batch waits in
 * memory, and nobody is told of "locked". */
static void held_lock(void) {
  at_store *s = at_store_open(ctx, at("h.db"), 0);
  at_trial t = trial("k", "A", 10);
  at_store_add_trials(s, NULL, &t, 1);
  sqlite3 *h;
  sqlite3_open(at("h.db"), &h);
  cr_assert_eq(sqlite3_exec(h, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
  s->file.patience_ms = 50;
  s->file.write_patience_ms = 50;
  same_text(best(s, "k"), "(none)");
  t = trial("k", "B", 5);
  at_store_add_trials(s, NULL, &t, 1);
  cr_assert(strstr(said, "keeps it busy") && !strstr(said, "locked"), "%s", said);
  same_text(best(s, "k"), "B");
  sqlite3_close(h);
  at_store_close(s);
  s = at_store_open(ctx, at("h.db"), 0);
  same_text(best(s, "k"), "B");
}
Test(store_files, held_lock) { OK(held_lock); }

/* ---- migrations and journal ---- */

static void migrations(void) {
  /* A store as an imagined later Tenon would find it: ours is version 1, its is 3. */
  at_store *s = at_store_open(ctx, at("v.db"), 0);
  fill(s, 0, 5);
  at_store_close(s);
  const char *const steps[] = {at_schema_steps[0], "ALTER TABLE trial ADD COLUMN spills INTEGER; CREATE TABLE extra(x)",
                               "INSERT INTO extra SELECT count(*) FROM trial"};
  sqlite3 *h;
  sqlite3_open(at("v.db"), &h);
  const char *const broken[] = {steps[0], steps[1], "INSERT INTO nowhere VALUES(1)"};
  cr_assert_neq(at_migrate(h, broken, 3), SQLITE_OK);
  at_db db = {.h = h};
  cr_assert_eq(at_db_int(&db, "PRAGMA user_version", -1), 1); /* all or nothing */
  cr_assert_eq(at_db_int(&db, "SELECT count(*) FROM sqlite_master WHERE name='extra'", -1), 0);
  cr_assert_eq(at_migrate(h, steps, 3), SQLITE_OK);
  cr_assert_eq(at_migrate(h, steps, 3), SQLITE_OK); /* once is enough */
  cr_assert_eq(at_db_int(&db, "PRAGMA user_version", -1), 3);
  cr_assert_eq(at_db_int(&db, "SELECT x FROM extra", -1), 10);
  cr_assert_eq(at_db_int(&db, "SELECT count(*) FROM extra", -1), 1);
  cr_assert_eq(at_migrate(h, steps, 2), SQLITE_SCHEMA);
  sqlite3_close(h);
  /* This Tenon leaves it alone. */
  s = at_store_open(ctx, at("v.db"), 0);
  cr_assert(strstr(said, "newer Tenon"), "%s", said);
  same_text(best(s, odd_kernel(1)), "(none)");
  at_store_close(s);
  /* An empty file becomes a store; so does one that was born but not filled. */
  fclose(fopen(at("e.db"), "w"));
  s = at_store_open(ctx, at("e.db"), AT_STORE_STRICT);
  cr_assert_eq(count(s, "PRAGMA user_version"), AT_SCHEMA_VERSION);
}
Test(store_files, migrations) { OK(migrations); }

static void journal(void) {
  const struct { int version; bool sound; } known[] = {
      {3040001, false}, {3044005, false}, {3044006, true}, {3045000, false}, {3050006, false}, {3050007, true},
      {3051000, false}, {3051002, false}, {3051003, true}, {3052000, true}, {4000000, true}};
  for (int i = 0; i < IR_COUNT(known); i++) cr_assert_eq(at_sqlite_wal_is_sound(known[i].version), known[i].sound, "%d", known[i].version);
  cr_assert(!at_is_local_filesystem("/proc/self") && !at_is_local_filesystem("/nonexistent"));
  at_store *s = at_store_open(ctx, at("j.db"), 0);
  bool wal = at_sqlite_wal_is_sound(sqlite3_libversion_number()) && at_is_local_filesystem(dir);
  sqlite3_stmt *st;
  sqlite3_prepare_v2(s->file.h, "PRAGMA journal_mode", -1, &st, NULL);
  sqlite3_step(st);
  same_text((const char *)sqlite3_column_text(st, 0), wal ? "wal" : "truncate");
  sqlite3_finalize(st);
  at_store_close(s);
  /* Found in WAL mode, it is turned back where WAL is not safe. */
  sqlite3 *h;
  sqlite3_open(at("j.db"), &h);
  sqlite3_exec(h, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
  sqlite3_close(h);
  s = at_store_open(ctx, at("j.db"), 0);
  fill(s, 0, 2);
  same_text(at_store_trouble(s), "");
  if (!wal) cr_assert(access(at("j.db-wal"), F_OK));
}
Test(store_files, journal) { OK(journal); }

/* ---- many writers, and writers that die ---- */

static tn_status write_rows(const char *path, int batches, int per_batch, int who) {
  tn_config config = {.log = hear};
  tn_ctx *mine = tn_ctx_new(&config), *outer = ctx;
  ctx = mine;
  at_store *s = at_store_open(mine, path, 0);
  at_run *run = at_run_begin(s, &(at_run_info){.seed = (uint64_t)who});
  for (int b = 0; b < batches; b++) {
    at_trial t[64];
    for (int i = 0; i < per_batch; i++) {
      t[i] = trial("k", ir_format(mine, "w%d b%d i%d", who, b, i), 100 + i);
      t[i].name = "k";
    }
    at_store_add_trials(s, run, t, per_batch);
  }
  at_run_end(s, run, NULL, 0);
  bool fine = !at_store_trouble(s)[0] && !said[0];
  tn_ctx_free(mine);
  ctx = outer;
  return fine ? TN_OK : TN_ERESOURCE;
}

static void writers(void) {
  enum { WRITERS = 4, BATCHES = 25, ROWS = 20 };
  pid_t child[WRITERS];
  for (int i = 0; i < WRITERS; i++)
    if (!(child[i] = fork())) _exit(write_rows(at("many.db"), BATCHES, ROWS, i));
  for (int i = 0; i < WRITERS; i++) {
    int status;
    waitpid(child[i], &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "writer %d: %d", i, status);
  }
  at_store *s = at_store_open(ctx, at("many.db"), 0);
  cr_assert_eq(count(s, "SELECT count(*) FROM trial"), WRITERS * BATCHES * ROWS);
  cr_assert_eq(count(s, "SELECT count(*) FROM run WHERE ended>0"), WRITERS);
  cr_assert_eq(count(s, "SELECT count(*) FROM workload"), 1);
  cr_assert_eq(at_store_verify(s, false, NULL, NULL).damaged, 0);
}
Test(store_files, many_writers) { OK(writers); }

/* Killed at any moment: whole batches are there, none that was acknowledged is lost. */
static void killed(void) {
  enum { KILLS = 15, ROWS = 20 };
  uint64_t r = 99;
  int64_t acknowledged = 0;
  for (int i = 0; i < KILLS; i++) {
    int pipe_fd[2];
    cr_assert_eq(pipe(pipe_fd), 0);
    pid_t child = fork();
    if (child == 0) {
      at_store *s = at_store_open(ctx, at("killed.db"), 0);
      at_run *run = at_run_begin(s, &(at_run_info){.seed = (uint64_t)i});
      for (int b = 0;; b++) {
        at_trial t[ROWS];
        for (int k = 0; k < ROWS; k++) t[k] = trial("k", ir_format(ctx, "%d %d %d", i, b, k), 100);
        at_store_add_trials(s, run, t, ROWS);
        if (at_store_trouble(s)[0] || write(pipe_fd[1], "x", 1) != 1) _exit(1);
      }
    }
    close(pipe_fd[1]);
    r = r * 6364136223846793005u + 1442695040888963407u;
    char buffer[4096];
    if (i % 2 && read(pipe_fd[0], buffer, 1) == 1) acknowledged++; /* while it writes, else while it opens */
    struct timespec pause = {0, (long)(r >> 40) % 50000000};
    nanosleep(&pause, NULL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    for (ssize_t n; (n = read(pipe_fd[0], buffer, sizeof buffer)) > 0;) acknowledged += n;
    close(pipe_fd[0]);
    at_store *s = at_store_open(ctx, at("killed.db"), AT_STORE_READONLY); /* a reader rolls back */
    same_text(said, "");
    if (s->file.h) {
      int64_t rows = count(s, "SELECT count(*) FROM trial");
      cr_assert(rows % ROWS == 0 && rows >= acknowledged * ROWS && rows <= (acknowledged + i + 1) * ROWS, "%d rows, %d batches",
                (int)rows, (int)acknowledged);
      cr_assert_eq(at_store_verify(s, false, NULL, NULL).damaged, 0);
    }
    at_store_close(s);
  }
  cr_assert(acknowledged > 0);
}
Test(store_files, killed_writers) { OK(killed); }

/* ---- memory runs out ---- */

static void few_bytes(void) {
  at_store *s = at_store_open(ctx, at("oom.db"), 0);
  fill(s, 0, 3);
  int n;
  at_key k = key(odd_kernel(1));
  at_store_seen(s, &k, &n);
  best(s, k.kernel);
  export_text(s);
  at_store_close(s);
}
Test(store_files, failing_allocations) {
  for (long i = 1; i < 40; i++) {
    ir_fail_alloc_after(ctx, i);
    tn_status st = protect(few_bytes);
    ir_fail_alloc_after(ctx, 0);
    cr_assert(st == TN_OK || st == TN_ERESOURCE, "%s", ir_error(ctx));
  }
  OK(few_bytes);
}
