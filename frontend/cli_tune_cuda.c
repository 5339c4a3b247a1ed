/* cli_tune_cuda.c — tenon tune --target cuda[:ARCH]: schedules by their times on the device. */
#include "frontend/cli_whole.h"
#include "ir/text.h"
#include "runtime/cuda_lib.h"
#include "runtime/cuda_run.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct tuned {
  const char *path;
  int n;                      /* layouts that were tuned */
  const char *layout[CLI_CUDA_LAYOUTS]; /* null where the usual one is the only one */
  const ir_program *program[CLI_CUDA_LAYOUTS];
  at_cuda_result r[CLI_CUDA_LAYOUTS];
  cli_cuda_race race;         /* of whole runs; not known: there was none */
} tuned;

/* ---- watching: the tuner works in a process of its own, which tells through a pipe what is on the device ---- */

enum { NAME = 256 };

typedef struct watch {
  int from, to;          /* ends of the pipe; from < 0: this is the worker */
  int n;
  at_cuda_stuck *stuck;  /* trials in which workers were stopped, or died */
} watch;

static void starts(void *user, const char *kernel, const char *choice) {
  const watch *w = user;
  char line[2 * NAME + 4];
  int n = *kernel ? snprintf(line, sizeof line, "%.*s\t%.*s\n", NAME, kernel, NAME, choice) : snprintf(line, sizeof line, "\n");
  for (ssize_t done = 0, k; done < n && (k = write(w->to, line + done, (size_t)(n - done))) > 0;) done += k;
}

/* Reads until the worker ends, or a trial does not come back from the device in time. False: it had to be stopped, or died. */
static bool watch_worker(watch *w, pid_t worker, double timeout_s, char *last, size_t room, int *status) {
  char buffer[4 * NAME];
  size_t n = 0;
  bool late = false;
  *last = 0;
  for (;;) {
    struct pollfd p = {.fd = w->from, .events = POLLIN};
    int ready = poll(&p, 1, *last ? (int)(timeout_s * 1000) : -1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      late = true;
      kill(worker, SIGKILL);
      break;
    }
    ssize_t k = read(w->from, buffer + n, sizeof buffer - 1 - n);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) break;
    buffer[n += (size_t)k] = 0;
    for (char *end; (end = strchr(buffer, '\n'));) { /* the last whole line counts */
      snprintf(last, room, "%.*s", (int)(end - buffer), buffer);
      n -= (size_t)(end + 1 - buffer);
      memmove(buffer, end + 1, n + 1);
    }
    if (n == sizeof buffer - 1) n = 0;
  }
  while (waitpid(worker, status, 0) < 0 && errno == EINTR) continue;
  return !late && !WIFSIGNALED(*status);
}

/* True in a worker, which is to tune; false when one has done so. */
static bool in_worker(cli *c, const cli_cuda_tuning *how, watch *w) {
  for (;;) {
    int ends[2], status;
    char last[2 * NAME + 4];
    fflush(NULL);
    if (pipe(ends)) ir_fail(c->ctx, TN_ERESOURCE, "no pipe to the tuner");
    pid_t worker = fork();
    if (worker < 0) ir_fail(c->ctx, TN_ERESOURCE, "no process for the tuner");
    w->from = worker ? ends[0] : -1;
    w->to = ends[1];
    close(ends[worker ? 1 : 0]);
    if (!worker) return true;
    bool ended = watch_worker(w, worker, how->timeout_s, last, sizeof last, &status);
    close(ends[0]);
    if (ended && WEXITSTATUS(status) == 0) return false;
    if (ended) _exit(WEXITSTATUS(status)); /* it said why */
    char *tab = strchr(last, '\t');
    if (!tab) ir_fail(c->ctx, TN_EINTERNAL, "the tuner died outside of its trials");
    at_cuda_stuck s = {ir_strndup(c->ctx, last, (size_t)(tab - last)), ir_strdup(c->ctx, tab + 1)};
    fprintf(stderr, "%s: %s: %s\n", s.kernel, s.choice, WTERMSIG(status) == SIGKILL ? "no end: it is stopped" : "the process died of it");
    IR_PUSH(c->ctx, w->stuck, w->n, s);
  }
}

/* ---- a model ---- */

static void tune_layout(cli *c, const cu_target *t, const cli_cuda_tuning *how, at_store *store, watch *w, const char *layout, double budget_s, tuned *x) {
  cli with = *c;
  if (layout) with.layout = layout;
  cli_model *m = cli_load(&with, x->path);
  cli_lower_cuda(&with, m, t);
  at_cuda_options o = {store, (int)how->trials, budget_s, how->stop, x->path, cli_accuracy(c), w->stuck, w->n, starts, w};
  x->program[x->n] = m->program;
  x->r[x->n] = at_cuda_tune(c->ctx, m->program, t, &o);
  x->layout[x->n++] = layout;
}

static bool same_kernels(tn_ctx *ctx, const ir_program *a, const ir_program *b) {
  bool same = a->nkernels == b->nkernels;
  for (int i = 0; same && i < a->nkernels; i++) same = strcmp(ir_kernel_canonical(ctx, a->kernels[i].kernel), ir_kernel_canonical(ctx, b->kernels[i].kernel)) == 0;
  return same;
}

/* A program of several sizes keeps the usual layout. */
static bool layout_matters(const cli *c, const char *path, const cu_target *t) {
  const ir_program *p[CLI_CUDA_LAYOUTS];
  for (int i = 0; i < CLI_CUDA_LAYOUTS; i++) {
    cli with = *c;
    with.layout = cli_cuda_layout[i];
    cli_model *m = cli_load(&with, path);
    cli_lower_cuda(&with, m, t);
    p[i] = m->program;
    if (p[i]->ndims) return false;
  }
  return !same_kernels(c->ctx, p[0], p[1]);
}

/* Both layouts as they stand, then the usual one, then the other unless it is far behind as a whole: minutes on a GPU are
 * few. Whole runs with the winners have the last word. */
static tuned tune_model(cli *c, const char *path, const cu_target *t, const cli_cuda_tuning *how, at_store *store, watch *w) {
  tuned x = {.path = path};
  double start = rt_now();
  if (c->layout || !store || !layout_matters(c, path, t)) {
    tune_layout(c, t, how, store, w, NULL, how->budget_s, &x);
    return x;
  }
  cli_cuda_race_options race = {t, w->stuck, w->n, starts, w};
  cli_cuda_race before = cli_cuda_layouts(c, path, &race);
  bool both = before.known && before.ms[1] < 2 * before.ms[0];
  tune_layout(c, t, how, store, w, cli_cuda_layout[0], both ? 0.6 * how->budget_s : how->budget_s, &x);
  double left = how->budget_s - (rt_now() - start);
  if (both && (!how->budget_s || left > 0) && !(how->stop && *how->stop)) tune_layout(c, t, how, store, w, cli_cuda_layout[1], how->budget_s ? left : 0, &x);
  x.race = cli_cuda_layouts(c, path, &race);
  cli_cuda_keep_layout(c, path, store, &race, &x.race);
  return x;
}

/* ---- lists ---- */

static void list_kernel(cli *c, cli_json *j, const cu_target *t, const ir_kernel *k) {
  int n;
  const char *why;
  const at_cuda_candidate *all = at_cuda_candidates(c->ctx, t, k, cli_accuracy(c), &n, &why);
  if (!j) fprintf(c->out, "kernel %s: %d candidates%s%s\n", k->name, n, why ? "; libraries: " : "", why ? why : "");
  for (int i = 0; i < n; i++) {
    const rt_cuda_candidate *l = all[i].library;
    if (j) {
      cj_open(j, NULL, '{');
      cj_text(j, "kernel", k->name);
      cj_text(j, "choice", all[i].choice);
      if (l) cj_int(j, "workspace", l->workspace);
      if (l) cj_text(j, "notes", l->notes);
      cj_close(j, '}');
    } else if (l) fprintf(c->out, "  %s: workspace %lld B%s%s\n", l->text, (long long)l->workspace, *l->notes ? ", " : "", l->notes);
    else fprintf(c->out, "  %s\n", all[i].choice);
  }
}

static void mark_called(int n, const ir_inst *insts, bool *called) {
  for (int i = 0; i < n; i++) {
    if (insts[i].kind == IR_CALL) called[insts[i].kernel] = true;
    mark_called(insts[i].nbody, insts[i].body, called);
    mark_called(insts[i].nother, insts[i].other, called);
  }
}

static void list_candidates(cli *c, const cu_target *t, at_store *store) {
  cli_json j;
  if (c->json) {
    cj_begin(&j, c->ctx);
    cj_text(&j, "target", t->name);
    cj_open(&j, "candidates", '[');
  }
  for (int a = 0; a < c->nargs; a++) {
    cli_model *m = cli_load(c, c->args[a]);
    cli_lower_cuda(c, m, t);
    const ir_program *p = m->program;
    bool *called = IR_NEW_ARRAY(c->ctx, bool, p->nkernels + 1);
    mark_called(p->nrun, p->run, called);
    for (int i = 0; i < p->nkernels; i++) {
      const ir_kernel *k = p->kernels[i].lowered ? p->kernels[i].lowered : p->kernels[i].kernel;
      if (!called[i] || k->ndims) continue;
      list_kernel(c, c->json ? &j : NULL, t, k);
      if (store) at_cuda_compile(c->ctx, store, t, k, cli_accuracy(c));
    }
  }
  if (!c->json) return;
  cj_close(&j, ']');
  cj_end(&j, c);
}

static void json_layout(cli_json *j, const tuned *t, int layout) {
  const at_cuda_result *r = &t->r[layout];
  const ir_program *p = t->program[layout];
  cj_open(j, NULL, '{');
  cj_text(j, "model", t->path);
  cj_text(j, "layout", t->layout[layout]);
  if (t->race.known && t->layout[layout]) cj_real(j, "whole_ms", t->race.ms[layout]);
  cj_int(j, "trials", r->trials);
  cj_int(j, "failed", r->failed);
  cj_int(j, "known", r->known);
  cj_int(j, "reopened", r->reopened);
  cj_text(j, "last_failure", r->trouble);
  cj_bool(j, "stopped", r->stopped);
  cj_open(j, "kernels", '[');
  for (int k = 0; k < p->nkernels; k++) {
    if (!r->kernels[k].choice) continue;
    cj_open(j, NULL, '{');
    cj_text(j, "name", p->kernels[k].kernel->name);
    cj_text(j, "schedule", r->kernels[k].choice);
    cj_real(j, "default_ns", r->kernels[k].default_ns);
    cj_real(j, "best_ns", r->kernels[k].best_ns);
    cj_text(j, "own", r->kernels[k].own);
    cj_real(j, "own_ns", r->kernels[k].own_ns);
    cj_text(j, "library", r->kernels[k].library);
    cj_real(j, "library_ns", r->kernels[k].library_ns);
    cj_close(j, '}');
  }
  cj_close(j, ']');
  cj_close(j, '}');
}

static void show_json(cli *c, int n, const tuned *t, const cu_target *target, const char *trouble) {
  cli_json j;
  cj_begin(&j, c->ctx);
  cj_text(&j, "target", target->name);
  cj_text(&j, "trouble", trouble);
  cj_open(&j, "models", '[');
  for (int i = 0; i < n; i++)
    for (int k = 0; k < t[i].n; k++) json_layout(&j, &t[i], k);
  cj_close(&j, ']');
  cj_open(&j, "layouts", '[');
  for (int i = 0; i < n; i++) {
    if (!t[i].race.known) continue;
    cj_open(&j, NULL, '{');
    cj_text(&j, "model", t[i].path);
    cj_text(&j, "chosen", t[i].race.chosen);
    cj_close(&j, '}');
  }
  cj_close(&j, ']');
  cj_end(&j, c);
}

static void show_layout(cli *c, const tuned *t, int layout) {
  const at_cuda_result *r = &t->r[layout];
  const ir_program *p = t->program[layout];
  for (int k = 0; k < p->nkernels; k++) {
    const at_cuda_kernel *x = &r->kernels[k];
    if (x->choice) fprintf(c->out, "%-32.32s %10s -> %10s  %s\n", p->kernels[k].kernel->name, cli_time(c, x->default_ns * 1e-9), cli_time(c, x->best_ns * 1e-9), x->choice);
  }
  fprintf(c->out, "%s%s%s: %d timed, %d of them failed, %d known%s\n", t->path, t->layout[layout] ? ", " : "", t->layout[layout] ? t->layout[layout] : "", r->trials, r->failed, r->known, r->stopped ? ", stopped: all of it is kept" : "");
  if (r->trouble) fprintf(c->out, "  the last failure: %s\n", r->trouble);
  if (r->reopened) fprintf(c->out, "  the device was opened anew %d times\n", r->reopened);
}

static void show(cli *c, const tuned *t) {
  for (int i = 0; i < t->n; i++) show_layout(c, t, i);
  if (t->race.known) fprintf(c->out, "%s: a run takes %s in NHWC, %s in NCHW: %s is taken\n", t->path, cli_time(c, t->race.ms[0] * 1e-3), cli_time(c, t->race.ms[1] * 1e-3), t->race.chosen);
  else if (t->race.why) fprintf(c->out, "%s: layouts were not compared: %s\n", t->path, t->race.why);
}

void cli_tune_cuda(cli *c, const cli_cuda_tuning *how) {
  watch w = {0};
  if (how->candidates) {
    at_store *store = how->compile ? at_store_open(c->ctx, c->db, 0) : NULL;
    list_candidates(c, cu_target_find(c->ctx, *how->arch ? how->arch : "sm_90a"), store);
    if (store) at_store_close(store);
    return;
  }
  if (!in_worker(c, how, &w)) return;
  const rt_cuda_lib *nvrtc = rt_cuda_library(RT_CUDA_NVRTC);
  const cu_target *target = *how->arch ? cu_target_find(c->ctx, how->arch) : rt_cuda_device_target(c->ctx, 0, NULL);
  if (!nvrtc->handle) ir_fail(c->ctx, TN_EUNSUPPORTED, "NVRTC, which compiles for GPUs, is not there: %s", nvrtc->why);
  at_store *store = at_store_open(c->ctx, c->db, 0);
  tuned *t = IR_NEW_ARRAY(c->ctx, tuned, c->nargs);
  for (int i = 0; i < c->nargs; i++) t[i] = tune_model(c, c->args[i], target, how, store, &w);
  const char *trouble = store ? ir_strdup(c->ctx, at_store_trouble(store)) : "";
  at_store_close(store);
  if (c->json) show_json(c, c->nargs, t, target, *trouble ? trouble : NULL);
  else
    for (int i = 0; i < c->nargs; i++) show(c, &t[i]);
}
