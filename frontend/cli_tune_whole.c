/* cli_tune_whole.c — whether the winners of kernels are worth it inside the whole model, and in which layout.
 *
 *   fresh process: defaults ──────────┐
 *   fresh process: winners in NCHWc ──┤ one run each in turn, there and back;
 *   fresh process: winners in NHWC ───┤ the ratios to the defaults; again with new processes
 *   fresh process: winners in NCHW ───┤
 *   fresh process: winners, groups cut┘
 *
 * Kernels that won alone may cost in a model what they leave of the caches, or copies around them. So whole runs decide:
 * winners that are not faster beyond the noise, two standard errors, are not used, and the store says so (at_whole_key). Where code and data of
 * a process lie moves its times by half a percent and more, hence new processes for each round: with 167 MB of weights, on a
 * virtual machine, whole processes took 22, 25 or 33 ms for the same plan. */
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

/* The child's life: seconds of a run for each byte; the first answer says that it is ready. The other processes have
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

static bool start(runner *p, const cli *c, int threads, const char *path, bool untuned, const char *layout, const char *cuts) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return false;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    running r = {.with = *c, .path = path, .fd = pair[1]};
    close(pair[0]);
    r.with.threads = threads;
    r.with.trust = true;
    if (untuned) r.with.db = "none";
    if (layout) r.with.layout = layout;
    r.with.cuts = cuts ? cuts : "";
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

enum { ROUNDS = 12, ROUNDS_UNTIMED = 4, RUNS = 21, LEAST = 7 };

typedef struct contest { /* the defaults, which are number 0, against the ways */
  const cli *c;
  const char *path;
  int n, rounds, threads;
  bool tried_cuts;
  const char *layout[CLI_MOST_WAYS + 1], *cuts[CLI_MOST_WAYS + 1];
  bool out[CLI_MOST_WAYS + 1]; /* far behind after a round: not run again */
  double ratio[CLI_MOST_WAYS + 1][ROUNDS]; /* logarithms of times over those of the defaults */
  double first[CLI_MOST_WAYS + 1][LEAST];  /* the first seconds of each */
  double low[CLI_MOST_WAYS + 1];           /* a fast run's seconds */
} contest;

/* One process of each, runs in turn for `seconds` or LEAST. False: one failed. */
static bool run_round(contest *k, double seconds) {
  runner p[CLI_MOST_WAYS + 1] = {{0}};
  double x[CLI_MOST_WAYS + 1][RUNS];
  int n = 0;
  bool fine = true;
  for (int i = 0; i < k->n && fine; i++)
    if (!k->out[i]) fine = start(&p[i], k->c, k->threads, k->path, i == 0, k->layout[i], k->cuts[i]);
  for (int i = 0; i < k->n && fine; i++)
    if (!k->out[i]) fine = !isnan(answer(&p[i]));
  for (double begin = rt_now(); fine && n < RUNS && (n < LEAST || rt_now() - begin < seconds); n++)
    for (int j = 0; j < k->n && fine; j++) {
      int i = (n & 1 ? k->n - 1 - j + n / 2 : j + n / 2) % k->n;
      if (k->out[i]) continue;
      x[i][n] = once(&p[i]);
      fine = x[i][n] > 0;
    }
  for (int i = 0; i < k->n; i++) end(&p[i]);
  for (int i = 0; i < k->n && fine; i++) {
    if (k->out[i]) continue;
    double low = at_low(x[i], n);
    if (!k->rounds) memcpy(k->first[i], x[i], sizeof k->first[i]);
    k->low[i] = k->rounds ? fmin(k->low[i], low) : low;
    k->ratio[i][k->rounds] = log(low / at_low(x[0], n));
  }
  k->rounds += fine;
  return fine;
}

/* The mean of way a's ratios to way b (0: the defaults) and its standard error: before any are seen, processes are
 * taken to scatter by SCATTER (defaults of resnet18 came to 24.1 to 25.8 ms; after one round half a percent is too little). */
static double mean(const contest *k, int a, int b, double *error) {
  const double SCATTER = 0.015;
  double sum = 0, squares = 0;
  int n = k->rounds;
  for (int i = 0; i < n; i++) sum += k->ratio[a][i] - k->ratio[b][i];
  for (int i = 0; i < n; i++) squares += pow(k->ratio[a][i] - k->ratio[b][i] - sum / n, 2);
  *error = sqrt((2 * SCATTER * SCATTER + squares) / (n + 1) / n);
  return sum / n;
}

/* The usual layout (way 1), unless one is faster by a hundredth and two standard errors. */
static int pick(const contest *k) {
  int best = k->out[1] ? 0 : 1;
  double least = 0, error;
  for (int i = 2; i < k->n; i++) {
    if (k->out[i]) continue;
    double d = mean(k, i, k->out[1] ? 0 : 1, &error);
    if (!best || (d < least && (k->out[1] || d < -fmax(0.01, 2 * error)))) least = d, best = i;
  }
  return best;
}

/* Ways that are 5 % behind the fastest are not run again. True: only the fastest is left. */
static bool drop_slow(contest *k) {
  int left = 0, fastest = 1;
  double error, least = INFINITY;
  for (int i = 1; i < k->n; i++)
    if (!k->out[i] && mean(k, i, 0, &error) < least) least = mean(k, i, 0, &error), fastest = i;
  for (int i = 1; i < k->n; i++) {
    k->out[i] |= i != fastest && mean(k, i, fastest, &error) > 0.05;
    left += !k->out[i];
  }
  return left == 1;
}

static void keep(const contest *k, at_store *store, const cli_verdict *v) {
  const cli *c = k->c;
  cli with = *c;
  with.trust = true;
  with.threads = k->threads;
  cli_model *m = cli_load(&with, k->path);
  cli_lower(&with, m);
  if (!m->whole_key) return;
  double ns[2] = {v->untuned_s * 1e9, v->untuned_s * (1 + v->way[v->chosen].change) * 1e9}, least = fmin(ns[0], ns[1]);
  at_trial rows[2], layouts[CLI_MOST_WAYS], cuts[2];
  for (int i = 0; i < 2; i++) {
    rows[i] = (at_trial){.key = *m->whole_key, .klass = "layout", .name = k->path, .schedule = i ? "tuned\n" : "untuned\n", .origin = "whole run"};
    rows[i].samples = &ns[i], rows[i].n = 1; /* as many each time: then the latest counts */
    rows[i].cost_ns = v->kept == (i == 1) ? least : fmax(ns[i], 1.001 * least);
  }
  at_store_add_trials(store, NULL, rows, 2);
  double x[CLI_MOST_WAYS][LEAST], cost = 1e9 * k->low[v->chosen + 1];
  const char *cut = v->way[v->n - 1].cuts, *chosen = v->way[v->chosen].cuts;
  for (int i = 0; i < 2 && k->tried_cuts; i++) { /* as many each time: then the latest counts */
    const char *config = i ? cut : "";
    if (!config) break;
    cuts[i] = (at_trial){.key = *m->cut_key, .klass = "layout", .name = k->path, .schedule = ir_format(c->ctx, i ? "cut %s\n" : "cut\n", config), .origin = "whole run"};
    cuts[i].samples = &ns[1], cuts[i].n = 1;
    cuts[i].cost_ns = (chosen != NULL) == (i == 1) ? cost : 1.001 * cost;
    at_store_add_trials(store, NULL, &cuts[i], 1);
  }
  int nlayouts = v->n - (cut != NULL), usual = chosen ? 0 : v->chosen;
  if (nlayouts < 2) return;
  for (int i = 0; i < nlayouts; i++) {
    for (int j = 0; j < LEAST; j++) x[i][j] = 1e9 * k->first[i + 1][j];
    layouts[i] = (at_trial){.key = *m->layout_key, .klass = "layout", .name = k->path, .schedule = ir_format(c->ctx, "layout %s\n", v->way[i].layout), .origin = "whole run"};
    layouts[i].samples = x[i], layouts[i].n = LEAST; /* as many each time */
    layouts[i].cost_ns = i == usual ? cost : fmax(1e9 * k->low[i + 1], 1.001 * cost);
  }
  at_store_add_trials(store, NULL, layouts, nlayouts);
}

static void describe(const contest *k, cli_verdict *v) {
  v->known = k->rounds > 0;
  v->n = k->n - 1;
  for (int i = 0; i < v->n; i++) {
    contest upto = *k;
    if (k->out[i + 1]) upto.rounds = 1; /* it has not run in all since: the first round tells how far it is behind */
    v->way[i] = (cli_way){.layout = k->layout[i + 1], .cuts = k->cuts[i + 1]};
    v->way[i].change = exp(mean(&upto, i + 1, 0, &v->way[i].error)) - 1;
  }
  v->chosen = pick(k) - 1;
  v->untuned_s = k->low[0], v->tuned_s = k->low[v->chosen + 1];
  v->kept = v->way[v->chosen].change < -2 * v->way[v->chosen].error;
}

static void say(const cli_whole_options *o, const contest *k) {
  if (!o->progress) return;
  cli_verdict v;
  describe(k, &v);
  ir_text t = {.ctx = k->c->ctx};
  ir_put(&t, "%s: whole runs, round %d:", k->path, k->rounds);
  for (int i = 0; i < v.n; i++) ir_put(&t, "%s %s %+.1f%%", i ? "," : "", v.way[i].cuts ? "cut" : v.way[i].layout ? v.way[i].layout : "winners", 100 * v.way[i].change);
  o->progress(o->user, ir_text_str(&t));
}

cli_verdict cli_judge_model(const cli *c, const char *path, const cli_whole_options *o) {
  contest k = {.c = c, .path = path, .n = 2, .threads = o->threads};
  for (int i = 0; i < o->nlayouts; i++) k.layout[i + 1] = o->layouts[i], k.n = i + 2;
  k.tried_cuts = o->tried_cuts;
  if (o->cuts) k.layout[k.n] = o->nlayouts ? o->layouts[0] : NULL, k.cuts[k.n++] = o->cuts;
  cli_verdict v = {0};
  int most = o->deadline > 0 ? ROUNDS : ROUNDS_UNTIMED;
  for (double took = 0; k.rounds < most && (!k.rounds || o->deadline <= 0 || rt_now() + took < o->deadline);) {
    double begin = rt_now(), error;
    if (!run_round(&k, 2)) break;
    took = rt_now() - begin;
    bool decided = drop_slow(&k);
    say(o, &k);
    double change = fabs(mean(&k, pick(&k), 0, &error));
    if (k.rounds >= 3 && decided && change > fmax(0.03, 3 * error)) break; /* clear enough */
  }
  if (!k.rounds) return v;
  describe(&k, &v);
  if (o->store && !c->layout) keep(&k, o->store, &v);
  return v;
}
