/* cli_tune_whole.c — whether the winners of kernels are worth it inside the whole model.
 *
 *   fresh process: defaults ──┐ one run each in turn, there and back
 *   fresh process: winners ───┴─ the ratio of their times; again with new processes
 *
 * Kernels that won alone may cost in a model what they leave of the caches, or copies around them. So whole runs decide:
 * winners that are not faster beyond the noise are not used, and the store says so (at_whole_key). */
#include "autotune/lookup.h"
#include "autotune/stats.h"
#include "autotune/tune.h"
#include "frontend/cli.h"
#include "frontend/cli_whole.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct runner { /* a process that runs the model once whenever it is asked to */
  pid_t pid;
  int fd;
} runner;

typedef struct running {
  cli with;
  const char *path;
  int fd;
} running;

/* The child's life: seconds of a run for each byte; the first answer says that it is ready. The other process has
 * taken the caches since: of short runs the second is timed. */
static void serve(tn_ctx *ctx, void *arg) {
  (void)ctx;
  running *r = arg;
  cli_model *m = cli_load(&r->with, r->path);
  cli_lower(&r->with, m);
  cli_fill(&r->with, m);
  cli_start(&r->with, m);
  for (int i = 0; i < 2; i++) cli_run_once(&r->with, m);
  double took = 0;
  char go;
  while (send(r->fd, &took, sizeof took, MSG_NOSIGNAL) == (ssize_t)sizeof took && read(r->fd, &go, 1) == 1) {
    if (took < 0.1) cli_run_once(&r->with, m);
    double start = rt_now();
    cli_run_once(&r->with, m);
    took = rt_now() - start;
  }
}

static bool start(runner *p, const cli *c, const char *path, bool untuned) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return false;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    running r = {.with = *c, .path = path, .fd = pair[1]};
    close(pair[0]);
    r.with.threads = 1;
    r.with.trust = true;
    if (untuned) r.with.db = "none";
    _exit(ir_protect(c->ctx, serve, &r) ? 1 : 0);
  }
  close(pair[1]);
  *p = (runner){pid, pair[0]};
  if (pid < 0) close(pair[0]);
  return pid > 0;
}

static void end(runner *p) {
  if (!p->pid) return;
  close(p->fd);
  kill(p->pid, SIGKILL);
  while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) {}
  p->pid = 0;
}

/* The next answer; NaN when the process has failed. */
static double answer(const runner *p) {
  double s;
  ssize_t k;
  do k = recv(p->fd, &s, sizeof s, MSG_WAITALL);
  while (k < 0 && errno == EINTR);
  return k == (ssize_t)sizeof s ? s : NAN;
}

static double once(const runner *p) { return send(p->fd, "g", 1, MSG_NOSIGNAL) == 1 ? answer(p) : NAN; }

enum { PROCESSES = 4, RUNS = 21, LEAST = 5 };

/* Runs of one pair of processes in turn, for `seconds` or LEAST. Returns how many pairs; 0: it failed. */
static int pair_of_processes(const cli *c, const char *path, double seconds, double x[2][RUNS]) {
  runner p[2] = {{0}};
  int n = 0;
  bool fine = start(&p[0], c, path, true) && start(&p[1], c, path, false) && !isnan(answer(&p[0])) && !isnan(answer(&p[1]));
  for (double begin = rt_now(); fine && n < RUNS && (n < LEAST || rt_now() - begin < seconds); n++)
    for (int k = 0; k < 2; k++) {
      int i = k ^ (n & 1);
      x[i][n] = once(&p[i]);
      if (!(x[i][n] > 0)) fine = false;
    }
  for (int i = 0; i < 2; i++) end(&p[i]);
  return fine ? n : 0;
}

static void keep(const cli *c, at_store *store, const char *path, const cli_verdict *v) {
  cli with = *c;
  with.trust = true;
  cli_model *m = cli_load(&with, path);
  cli_lower(&with, m);
  if (!m->whole_key) return;
  double ns[2] = {v->untuned_s * 1e9, v->untuned_s * (1 + v->change) * 1e9}, least = fmin(ns[0], ns[1]);
  at_trial rows[2];
  for (int i = 0; i < 2; i++) {
    rows[i] = (at_trial){.key = *m->whole_key, .klass = "layout", .name = path, .schedule = i ? "tuned\n" : "untuned\n", .origin = "whole run"};
    rows[i].samples = &ns[i], rows[i].n = 1; /* as many each time: then the latest counts */
    rows[i].cost_ns = v->kept == (i == 1) ? least : fmax(ns[i], 1.001 * least);
  }
  at_store_add_trials(store, NULL, rows, 2);
}

cli_verdict cli_judge_model(const cli *c, at_store *store, const char *path, double deadline) {
  double sum = 0, squares = 0, low[2] = {INFINITY, INFINITY}, ratio[PROCESSES];
  int n = 0;
  cli_verdict v = {0};
  for (double took = 0; n < PROCESSES && (n == 0 || deadline <= 0 || rt_now() + took < deadline); n++) {
    double x[2][RUNS], begin = rt_now();
    int k = pair_of_processes(c, path, 2, x);
    if (!k) break;
    for (int i = 0; i < 2; i++) low[i] = fmin(low[i], at_low(x[i], k));
    ratio[n] = log(at_low(x[1], k) / at_low(x[0], k));
    sum += ratio[n];
    took = rt_now() - begin;
    if (n == 2 && fabs(sum / 3) > 0.03) { /* clear enough */
      n++;
      break;
    }
  }
  if (!n) return v;
  for (int i = 0; i < n; i++) squares += (ratio[i] - sum / n) * (ratio[i] - sum / n);
  v.error = sqrt((2 * 0.005 * 0.005 + squares) / (n + 1) / n); /* before any are seen, processes are taken to scatter by half a percent */
  v.known = true;
  v.change = exp(sum / n) - 1;
  v.untuned_s = low[0], v.tuned_s = low[1];
  v.kept = sum / n < -v.error;
  if (store) keep(c, store, path, &v);
  return v;
}
