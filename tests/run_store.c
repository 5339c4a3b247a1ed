/* run_store.c — puts a tuning store under load.
 *
 *   run_store stress FILE WRITERS ROWS BATCH   so many processes write so many rows each
 *   run_store kill FILE KILLS                  a writer is killed again and again, at random moments
 *   run_store speed FILE                       time of a look-up, and of writing a batch
 *
 * Exit 0: every row is there, the file is sound, and nobody was told of a lock.
 */
#include "autotune/store_internal.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES = 30, MOST = 256 };

static int warnings;
static void hear(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "%s\n", line);
  warnings++;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct job {
  const char *file;
  int writers, rows, batch, who, ack; /* ack: file descriptor told of each batch; -1: none */
  double longest; /* seconds of the slowest batch */
  bool ok;
} job;

/* Writes rows until there are enough of them; rows < 0: for ever. */
static void write_rows(tn_ctx *ctx, void *arg) {
  job *j = arg;
  static double samples[MOST][SAMPLES];
  static char schedule[MOST][64];
  static at_trial t[MOST];
  at_store *s = at_store_open(ctx, j->file, AT_STORE_NOSHARED);
  at_run *run = at_run_begin(s, &(at_run_info){.seed = (uint64_t)j->who, .label = "stress"});
  for (int row = 0; j->rows < 0 || row < j->rows;) {
    int n = 0;
    for (; n < j->batch && (j->rows < 0 || row < j->rows); n++, row++) {
      for (int i = 0; i < SAMPLES; i++) samples[n][i] = 1000 + row % 100 + i * 0.125;
      snprintf(schedule[n], sizeof schedule[n], "split i %d -> io ii; unroll ii; # %d", row, j->who);
      t[n] = (at_trial){.key = {"kernel text", "x86-64-v3", "warm", "cg1"}, .klass = "gemm", .name = "gemm:f32:64x64x64",
                        .schedule = schedule[n], .samples = samples[n], .n = SAMPLES, .origin = "stress"};
    }
    double start = seconds();
    at_store_add_trials(s, run, t, n);
    double took = seconds() - start;
    if (took > j->longest) j->longest = took;
    if (at_store_trouble(s)[0]) return;
    if (j->ack >= 0 && write(j->ack, "x", 1) != 1) return;
  }
  at_run_end(s, run, NULL, 0);
  j->ok = !at_store_trouble(s)[0] && !warnings;
}

static bool in_context(void (*fn)(tn_ctx *ctx, void *arg), void *arg) {
  tn_config config = {.log = hear};
  tn_ctx *ctx = tn_ctx_new(&config);
  bool ok = ctx && ir_protect(ctx, fn, arg) == TN_OK;
  if (!ok) fprintf(stderr, "%s\n", ctx ? tn_error(ctx) : "out of memory");
  tn_ctx_free(ctx);
  return ok && !warnings;
}

typedef struct finding {
  const char *file;
  int64_t rows, problems;
} finding;

static void say(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "verify: %s\n", line);
}

static void inspect(tn_ctx *ctx, void *arg) {
  finding *f = arg;
  at_store *s = at_store_open(ctx, f->file, AT_STORE_NOSHARED | AT_STORE_READONLY);
  f->rows = s->file.h ? at_db_int(&s->file, "SELECT count(*) FROM trial", -1) : 0;
  f->problems = at_store_verify(s, false, say, NULL).damaged;
}

static int stress(job *j) {
  double start = seconds(), longest = 0;
  int failed = 0;
  pid_t *child = calloc((size_t)j->writers, sizeof *child);
  int(*result)[2] = calloc((size_t)j->writers, sizeof *result);
  if (!child || !result) return 1;
  for (int i = 0; i < j->writers; i++) {
    if (pipe(result[i])) return 1;
    if (!(child[i] = fork())) {
      job mine = *j;
      mine.who = i;
      mine.ack = -1;
      bool ok = in_context(write_rows, &mine) && mine.ok;
      if (write(result[i][1], &mine.longest, sizeof mine.longest) < 0) ok = false;
      _exit(ok ? 0 : 1);
    }
    close(result[i][1]);
  }
  for (int i = 0; i < j->writers; i++) {
    int status;
    double slowest = 0;
    if (read(result[i][0], &slowest, sizeof slowest) == (ssize_t)sizeof slowest && slowest > longest) longest = slowest;
    waitpid(child[i], &status, 0);
    failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    close(result[i][0]);
  }
  free(child);
  free(result);
  double took = seconds() - start;
  finding f = {.file = j->file};
  bool ok = in_context(inspect, &f);
  int64_t want = (int64_t)j->writers * j->rows;
  printf("stress: %d writers, %lld of %lld rows, %d failed writers, %lld problems, %.1f s, %.0f rows/s, slowest batch %.2f s\n",
         j->writers, (long long)f.rows, (long long)want, failed, (long long)f.problems, took, (double)want / took, longest);
  return ok && !failed && f.rows == want && !f.problems ? 0 : 1;
}

static int kill_loop(const char *file, int kills) {
  uint64_t r = (uint64_t)getpid();
  int64_t told = 0, rows = 0;
  enum { BATCH = 20 };
  for (int i = 0; i < kills; i++) {
    int ack[2];
    if (pipe(ack)) return 1;
    pid_t child = fork();
    if (child == 0) {
      close(ack[0]);
      job j = {.file = file, .rows = -1, .batch = BATCH, .who = i, .ack = ack[1]};
      in_context(write_rows, &j);
      _exit(1);
    }
    close(ack[1]);
    r = r * 6364136223846793005u + 1442695040888963407u;
    char buffer[4096];
    if (i % 4 && read(ack[0], buffer, 1) == 1) told++; /* while it writes; every fourth time while it opens */
    struct timespec pause = {0, (long)((r >> 33) % 100000000)};
    nanosleep(&pause, NULL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    for (ssize_t n; (n = read(ack[0], buffer, sizeof buffer)) > 0;) told += n;
    close(ack[0]);
    finding f = {.file = file};
    if (!in_context(inspect, &f)) return 1;
    rows = f.rows;
    /* All that was acknowledged is there, and at most one batch per kill was not yet. */
    if (f.problems || rows % BATCH || rows < told * BATCH || rows > (told + i + 1) * BATCH) {
      printf("kill %d: %lld rows, %lld batches acknowledged, %lld problems\n", i, (long long)rows, (long long)told,
             (long long)f.problems);
      return 1;
    }
  }
  printf("kill: %d kills, %lld batches acknowledged, %lld rows, none lost\n", kills, (long long)told, (long long)rows);
  return told > 0 || kills == 0 ? 0 : 1;
}

static void speed(tn_ctx *ctx, void *arg) {
  const char *file = arg;
  enum { BATCHES = 50, BATCH = 64 };
  char kernel[1500];
  memset(kernel, 'k', sizeof kernel - 1);
  kernel[sizeof kernel - 1] = 0;
  at_store *s = at_store_open(ctx, file, AT_STORE_NOSHARED);
  double start = seconds(), x[SAMPLES];
  for (int i = 0; i < SAMPLES; i++) x[i] = 1000 + i * 0.37;
  for (int b = 0; b < BATCHES; b++) {
    at_trial t[BATCH];
    for (int i = 0; i < BATCH; i++)
      t[i] = (at_trial){.key = {kernel, "x86-64-v3", "warm", "cg1"}, .schedule = ir_format(ctx, "split i %d -> io ii; unroll %d", b, i),
                        .samples = x, .n = SAMPLES};
    at_store_add_trials(s, NULL, t, BATCH);
  }
  double per_batch = (seconds() - start) / BATCHES, least = 1, all = 0;
  at_key key = {kernel, "x86-64-v3", "warm", "cg1"};
  at_winner w;
  enum { ROUNDS = 200, CALLS = 50 };
  for (int r = 0; r < ROUNDS; r++) {
    start = seconds();
    for (int i = 0; i < CALLS; i++) at_store_best(s, &key, &w);
    double each = (seconds() - start) / CALLS;
    all += each / ROUNDS;
    if (each < least) least = each;
  }
  printf("speed: look-up %.1f us (mean %.1f us) among %d trials of a kernel of %zu bytes; a batch of %d rows %.1f ms\n", least * 1e6,
         all * 1e6, BATCHES * BATCH, strlen(kernel), BATCH, per_batch * 1e3);
}

int main(int argc, char **argv) {
  if (argc == 6 && !strcmp(argv[1], "stress")) {
    job j = {.file = argv[2], .writers = atoi(argv[3]), .rows = atoi(argv[4]), .batch = atoi(argv[5])};
    if (j.writers > 0 && j.rows > 0 && j.batch > 0 && j.batch <= MOST) return stress(&j);
  }
  if (argc == 4 && !strcmp(argv[1], "kill")) return kill_loop(argv[2], atoi(argv[3]));
  if (argc == 3 && !strcmp(argv[1], "speed")) return in_context(speed, argv[2]) ? 0 : 1;
  fprintf(stderr, "usage: run_store stress FILE WRITERS ROWS BATCH | kill FILE KILLS | speed FILE\n");
  return 2;
}
