/* run_tune.c — the tuner under attack: candidates that misbehave, and kills at random moments.
 *
 *   run_tune kill FILE KILLS SEED
 *
 * Again and again a process tunes into one store and is killed. After each kill: the store is sound,
 * every row that was there is there, nothing was tried by two processes, the winner is no criminal,
 * and no worker is left. Exit 0 when that held, and a last undisturbed run, then one more, which
 * finds nothing left to do, agree on the winner. */
#include "autotune/tune.h"
#include "ir/text.h"
#include "lower/schedule.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char kernel_text[] = "kernel gemm(in a: f32[24, 32], const b: f32[32, 48], out c: f32[24, 48]) {\n"
                                  "  for m in 0..24 { for n in 0..48 {\n"
                                  "    alloc acc: f32[] register\n"
                                  "    acc[] = 0.0\n"
                                  "    for k in 0..32 { acc[] = fma(a[m, k], b[k, n], acc[]) }\n"
                                  "    c[m, n] = max(0.0, acc[])\n"
                                  "  } }\n"
                                  "}\n";

enum { TRIALS = 300, INPUT_BYTES = 24 * 32 * 4, OUTPUT_BYTES = 24 * 48 * 4 };

/* ---- crimes ---- */

typedef enum crime { CRASH, ABORT, HANG, HOG, WRONG, BEFORE, BEHIND, WRITE_INPUT, CRASH_COMPILING, CRIMES } crime;

/* The crime of a schedule, by its text; CRIMES: none. The default is innocent. */
static crime crime_of(const char *schedule, const char *standard) {
  if (strcmp(schedule, standard) == 0) return CRIMES;
  uint64_t h = ir_hash_bytes(schedule, strlen(schedule), 11) % 27;
  return h < CRIMES ? (crime)h : CRIMES;
}

static void hog(void) {
  for (;;) {
    char *p = malloc(64 << 20);
    if (!p) _exit(77);
    for (size_t i = 0; i < 64 << 20; i += 4096) p[i] = 1;
  }
}

static void misbehave(void *user, at_moment moment, const char *schedule, void *const *args, int nargs) {
  static volatile int sink;
  crime c = crime_of(schedule, user);
  volatile char *out = args ? args[nargs - 1] : NULL;
  if (moment == AT_COMPILING && c == CRASH_COMPILING) raise(SIGSEGV);
  if (moment == AT_AFTER_RUN && c == WRONG) out[OUTPUT_BYTES / 2 + 1] ^= 0x40;
  if (moment != AT_BEFORE_RUN) return;
  switch (c) {
  case CRASH: *(volatile int *)(uintptr_t)(nargs + 7) = 1; break;
  case ABORT: abort();
  case HANG: for (;;) sink++;
  case HOG: hog(); break;
  case BEFORE: out[-1] = 1; break;
  case BEHIND: out[OUTPUT_BYTES] = 1; break;
  case WRITE_INPUT: ((volatile char *)args[0])[INPUT_BYTES / 2] = 1; break;
  default: break;
  }
}

/* ---- a run ---- */

typedef struct attempt {
  const char *file;
  uint64_t seed;
  int new_trials;      /* out, as all below */
  const char *winner;  /* malloc */
} attempt;

static const ir_kernel *kernel(tn_ctx *ctx) { return ir_kernel_parse(ctx, kernel_text, "kernel"); }
static const char *standard_of(tn_ctx *ctx) {
  return lw_schedule_canonical(ctx, lw_default_schedule(ctx, kernel(ctx), cg_target_find(ctx, NULL, NULL), 0));
}

static void tune(tn_ctx *ctx, void *arg) {
  attempt *a = arg;
  at_tune_kernel k = {kernel(ctx), "gemm", 1, false};
  at_tune_options o = {.target = cg_target_find(ctx, NULL, NULL), .store = at_store_open(ctx, a->file, AT_STORE_NOSHARED), .trials = TRIALS,
                       .seed = a->seed, .jobs = 2, .limits = {2, 0.2, 256 << 20}};
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  o.misbehave = (at_misbehave){misbehave, (void *)(uintptr_t)standard_of(ctx)};
#endif
  const at_tune_result *r = at_tune(ctx, 1, &k, &o);
  a->new_trials = r->trials;
  at_winner w;
  at_key key = at_key_of(ctx, k.kernel, o.target, 1);
  if (at_store_best(o.store, &key, &w)) a->winner = strdup(w.schedule);
}

static bool in_context(void (*fn)(tn_ctx *ctx, void *arg), void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ctx ? ir_protect(ctx, fn, arg) : TN_ERESOURCE;
  if (s) fprintf(stderr, "%s\n", ctx ? tn_error(ctx) : "out of memory");
  tn_ctx_free(ctx);
  return s == TN_OK;
}

/* ---- what must hold ---- */

typedef struct rows { /* sorted */
  char (*uid)[33];
  int n, cap;
} rows;

typedef struct inspection {
  const char *file;
  const rows *before;
  rows now;
  int failed, criminals_ok, twice;
  bool ok;
  /* while it walks */
  tn_ctx *ctx;
  const char *standard;
  ir_map tried; /* schedule to the run that tried it */
} inspection;

static int by_uid(const void *a, const void *b) { return strcmp(a, b); }

static bool look(void *user, const at_record *r) {
  inspection *x = user;
  if (x->now.n == x->now.cap) {
    x->now.cap = x->now.cap ? 2 * x->now.cap : 256;
    x->now.uid = realloc(x->now.uid, (size_t)x->now.cap * sizeof *x->now.uid);
    if (!x->now.uid) abort();
  }
  snprintf(x->now.uid[x->now.n++], sizeof *x->now.uid, "%s", r->uid);
  const char *schedule = lw_schedule_named(x->ctx, kernel(x->ctx), ir_strdup(x->ctx, r->schedule));
  x->failed += r->status != AT_OK && r->status != AT_NOISY;
  x->criminals_ok += r->status == AT_OK && crime_of(schedule, x->standard) != CRIMES;
  bool proposed = strcmp(r->origin, "model") == 0 || strcmp(r->origin, "neighbour") == 0 || strcmp(r->origin, "random") == 0;
  if (!proposed) return true;
  const char *key = ir_intern(x->ctx, schedule), *run = ir_intern(x->ctx, r->run), *by = ir_map_get(&x->tried, key);
  x->twice += by && by != run;
  ir_map_set(&x->tried, key, (void *)(uintptr_t)run);
  return true;
}

static void say(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "verify: %s\n", line);
}

static void inspect(tn_ctx *ctx, void *arg) {
  inspection *x = arg;
  x->ctx = ctx;
  x->standard = standard_of(ctx);
  x->tried = (ir_map){.ctx = ctx};
  at_store *s = at_store_open(ctx, x->file, AT_STORE_NOSHARED | AT_STORE_READONLY);
  at_store_each_trial(s, &(at_filter){0}, look, x);
  int lost = 0;
  if (x->now.n) qsort(x->now.uid, (size_t)x->now.n, sizeof *x->now.uid, by_uid);
  for (int i = 0; i < x->before->n; i++)
    lost += !x->now.n || !bsearch(x->before->uid[i], x->now.uid, (size_t)x->now.n, sizeof *x->now.uid, by_uid);
  int64_t damaged = at_store_verify(s, false, say, NULL).damaged;
  at_winner w;
  at_key key = at_key_of(ctx, kernel(ctx), cg_target_find(ctx, NULL, NULL), 1);
  bool criminal = at_store_best(s, &key, &w) && crime_of(lw_schedule_named(ctx, kernel(ctx), w.schedule), x->standard) != CRIMES;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  criminal = false, x->criminals_ok = 0; /* nobody misbehaves there */
#endif
  x->ok = !lost && !damaged && !criminal && !x->criminals_ok && !x->twice && !at_store_trouble(s)[0];
  if (!x->ok)
    printf("%d rows lost, %lld damaged, %d criminals count as ok%s, %d schedules tried twice%s\n", lost, (long long)damaged, x->criminals_ok,
           criminal ? " and one is the winner" : "", x->twice, at_store_trouble(s));
}

/* The kill's victims hold the writing end: true once all are gone. */
static bool all_gone(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  char c;
  return poll(&p, 1, 5000) == 1 && read(fd, &c, 1) == 0;
}

/* Processor seconds of a process and of those that it has waited for; 0 once it is gone. */
static double used_by(pid_t pid) {
  char path[64], line[1024];
  unsigned long ticks[4] = {0};
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  const char *end = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
  if (end) sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu", &ticks[0], &ticks[1], &ticks[2], &ticks[3]);
  fclose(f);
  return (double)(ticks[0] + ticks[1] + ticks[2] + ticks[3]) / (double)sysconf(_SC_CLK_TCK);
}

/* The same of a tuner and its workers. */
static double used(pid_t tuner) {
  char path[64];
  double sum = used_by(tuner);
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)tuner, (int)tuner);
  FILE *f = fopen(path, "r");
  if (!f) return sum;
  for (int worker; fscanf(f, "%d", &worker) == 1;) sum += used_by(worker);
  fclose(f);
  return sum;
}

/* Until a tuner and its workers have used so much: a busy machine, where starting takes a second, does not have all kills
 * come before there is anything to lose. False: it has ended. */
static bool let_work(pid_t tuner, double seconds) {
  enum { PATIENCE = 120 * 500 };
  for (int i = 0; i < PATIENCE && used(tuner) < seconds; i++) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)tuner, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid) return false;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  return true;
}

static bool kill_one(const char *file, uint64_t seed, uint64_t ns) {
  int alive[2];
  if (pipe(alive)) return false;
  pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    close(alive[0]);
    attempt a = {.file = file, .seed = seed};
    in_context(tune, &a);
    _exit(0);
  }
  close(alive[1]);
  if (let_work(child, (double)ns * 1e-9)) nanosleep(&(struct timespec){.tv_nsec = (long)(ns % 10000000)}, NULL); /* clocks tick in hundredths */
  kill(child, SIGKILL);
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
  bool gone = all_gone(alive[0]);
  if (!gone) printf("a worker outlives its tuner\n");
  close(alive[0]);
  return gone;
}

static int kills(const char *file, int n, uint64_t seed) {
  rows before = {0};
  int failed = 0;
  uint64_t r = seed;
  for (int i = 0; i < n; i++) {
    r = r * 6364136223846793005u + 1442695040888963407u;
    if (!kill_one(file, seed, (r >> 33) % 1200000000)) return 1;
    inspection x = {.file = file, .before = &before};
    if (!in_context(inspect, &x) || !x.ok) {
      printf("after kill %d\n", i + 1);
      return 1;
    }
    free(before.uid);
    before = x.now;
    failed = x.failed;
  }
  int survivors = before.n;
  if (n >= 50 && survivors < n) {
    printf("%d kills came before anything was in the store to be lost: %d rows\n", n, survivors);
    return 1;
  }
  attempt last = {.file = file, .seed = seed}, again = last;
  inspection whole = {.file = file, .before = &before}, x = {.file = file, .before = &whole.now};
  if (!in_context(tune, &last) || !in_context(inspect, &whole) || !whole.ok) return 1;
  if (!in_context(tune, &again) || !in_context(inspect, &x) || !x.ok) return 1;
  if (x.now.n != whole.now.n) { /* by chance another final names the same winner */
    printf("a restart after success has written %d rows\n", x.now.n - whole.now.n);
    return 1;
  }
  bool same = last.winner && again.winner && strcmp(last.winner, again.winner) == 0;
  printf("kill: %d kills, %d rows by then (%d failures), none lost, none wrong, none tried twice; then %d trials, then %d; %s winner\n", n, survivors,
         failed, last.new_trials, again.new_trials, same ? "the same" : "another");
  free(before.uid);
  free(whole.now.uid);
  free(x.now.uid);
  return same && again.new_trials == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
  if (argc == 5 && strcmp(argv[1], "kill") == 0) return kills(argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 10));
  fprintf(stderr, "usage: run_tune kill FILE KILLS SEED\n");
  return 2;
}
