/* worker.c — the life of a worker process: compiles, checks, times. See measure.h. */
#include "autotune/worker.h"
#include "autotune/operands.h"
#include "codegen/jit.h"
#include "lower/schedule.h"
#include "runtime/profile.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct loaded { /* a candidate that can be timed */
  struct loaded *next;
  int64_t id;
  tn_ctx *ctx;         /* of its own: code and memory go with it */
  at_code code;
  const at_arguments *args;
  int64_t reps;        /* calls in a sample; 0: not known yet */
} loaded;

typedef struct worker {
  int fd;
  at_shared *shared;
  const at_lab_options *o;
  tn_ctx *bench_ctx;   /* of the current kernel */
  at_operands *operands;
  const ir_kernel *kernel;
  loaded *all;
  rt_pool *pool;       /* null: one thread, or none was needed yet */
  int64_t turn;        /* which copy of the constants is next */
  at_frame in, out;
} worker;

static worker the; /* one per process; the signal handler looks at it */

/* ---- what may go wrong ---- */

static void on_fault(int signal, siginfo_t *info, void *context) {
  (void)context;
  const char *where = at_guard_at(info->si_addr);
  if (where && the.shared) {
    size_t n = 0;
    for (; where[n] && n < sizeof the.shared->note - 1; n++) the.shared->note[n] = where[n];
    the.shared->note[n] = 0;
  }
  struct sigaction plain = {.sa_handler = SIG_DFL};
  sigaction(signal, &plain, NULL); /* on return the instruction faults again, for good */
  if (info->si_code <= 0) raise(signal); /* sent, not met */
}

static void catch_faults(void) {
  static char stack[1 << 16];
  stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternative, NULL);
  struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(SIGSEGV, &a, NULL);
  sigaction(SIGBUS, &a, NULL);
}

static void beat(void) { the.shared->beats++; }

/* Runs fn in a context; its error becomes the answer's status and reason. */
typedef struct answer {
  at_status status;
  char reason[400];
} answer;

static void fail(answer *a, at_status status, const char *reason) {
  a->status = status;
  snprintf(a->reason, sizeof a->reason, "%s", reason);
}

static bool guarded_call(tn_ctx *ctx, void (*fn)(tn_ctx *, void *), void *arg, at_status kind, answer *a) {
  tn_status s = ir_protect(ctx, fn, arg);
  if (s) fail(a, s == TN_ERESOURCE ? AT_OOM : kind, ir_error(ctx));
  return s == TN_OK;
}

static void reply_head(const answer *a) {
  at_frame_clear(&the.out);
  at_put_int(&the.out, a->status);
  at_put_text(&the.out, a->reason);
}

/* ---- compiling ---- */

typedef struct compile_job {
  const char *kernel, *schedule;
  answer *a;
  const ir_kernel *lowered;
  const cg_object *object;
} compile_job;

static void compile(tn_ctx *ctx, void *arg) {
  compile_job *j = arg;
  const ir_kernel *k = ir_kernel_parse(ctx, j->kernel, "kernel");
  const char *reason = NULL;
  j->lowered = lw_schedule_apply(ctx, k, j->schedule, &reason);
  if (!j->lowered) {
    fail(j->a, AT_REFUSED, reason ? reason : "refused");
    return;
  }
  const char *wrong = ir_kernel_verify(ctx, j->lowered);
  if (wrong) {
    fail(j->a, AT_COMPILE_ERROR, ir_format(ctx, "the scheduled kernel is not valid: %s", wrong));
    return;
  }
  if (the.o->misbehave.fn) the.o->misbehave.fn(the.o->misbehave.user, AT_COMPILING, j->schedule, NULL, 0);
  j->object = cg_compile_kernel(ctx, the.o->target, j->lowered, "tn_candidate");
  int64_t tasks;
  if (!ix_const_value(j->object->kernels[0].ntasks, &tasks)) {
    fail(j->a, AT_REFUSED, "the number of tasks depends on dimensions");
    j->object = NULL;
  }
}

/* How a buffer lies: its layout, or for what a schedule put in a constant's place the kernel that makes it. */
static const char *form_of(tn_ctx *ctx, const ir_buf *b) {
  if (b->made) return ir_kernel_print(ctx, lw_made_kernel(ctx, b));
  return b->layout ? b->layout->text : "";
}

static void do_compile(void) {
  answer a = {AT_OK, ""};
  compile_job j = {.a = &a};
  j.kernel = at_get_text(&the.in);
  j.schedule = at_get_text(&the.in);
  tn_ctx *ctx = tn_ctx_new(NULL);
  if (!ctx) _exit(AT_EXIT_OOM);
  double start = rt_now();
  guarded_call(ctx, compile, &j, AT_COMPILE_ERROR, &a);
  reply_head(&a);
  at_put_real(&the.out, (rt_now() - start) * 1e3);
  at_put_int(&the.out, -1);
  if (a.status == AT_OK && j.object) {
    const cg_kernel_info *info = &j.object->kernels[0];
    int64_t tasks = 0;
    ix_const_value(info->ntasks, &tasks);
    at_put_int(&the.out, tasks);
    at_put_int(&the.out, cg_kernel_scratch(info, the.o->threads > 1 ? the.o->threads : 1));
    at_put_int(&the.out, info->nphases);
    for (int i = 0; i < CG_MAX_PHASES; i++) at_put_int(&the.out, i < info->nphases ? info->phase[i] : 0);
    at_put_int(&the.out, j.lowered->nbufs);
    for (int i = 0; i < j.lowered->nbufs; i++) at_put_text(&the.out, form_of(ctx, j.lowered->bufs[i]));
    at_put_bytes(&the.out, j.object->bytes, j.object->size);
  }
  tn_ctx_free(ctx);
}

/* ---- the kernel ---- */

static void unload(loaded *l) {
  tn_ctx_free(l->ctx);
  free(l);
}

static void forget_kernel(void) {
  while (the.all) {
    loaded *l = the.all;
    the.all = l->next;
    unload(l);
  }
  tn_ctx_free(the.bench_ctx);
  the.bench_ctx = NULL;
  the.operands = NULL;
}

static const ir_layout **own_layouts(tn_ctx *ctx, const ir_kernel *k) {
  const ir_layout **l = IR_NEW_ARRAY(ctx, const ir_layout *, k->nbufs + 1);
  for (int i = 0; i < k->nbufs; i++) l[i] = k->bufs[i]->layout;
  return l;
}

typedef struct kernel_job {
  const char *text, *wrong;
  bool sampled;
  int n; /* references that came along */
  const void *reference[AT_MOST_BUFFERS];
  size_t bytes[AT_MOST_BUFFERS];
} kernel_job;

static void take_kernel(tn_ctx *ctx, void *arg) {
  kernel_job *j = arg;
  the.kernel = ir_kernel_parse(ctx, j->text, "kernel");
  the.operands = at_operands_new(ctx, the.kernel, the.o->target, the.o->seed);
  beat();
  if (j->n && at_operands_import(the.operands, j->n, j->reference, j->bytes, j->sampled)) return;
  j->n = 0;
  double most = the.o->reference_work > 0 ? the.o->reference_work : 2e9;
  const ir_kernel *r = at_reference_kernel(ctx, the.kernel, most, &j->sampled);
  const char *wrong = ir_kernel_verify(ctx, r);
  if (wrong) ir_fail(ctx, TN_EINTERNAL, "the reference is not valid: %s", wrong);
  const cg_object *object = cg_compile_kernel(ctx, the.o->target, r, "tn_reference");
  cg_jit *jit = cg_jit_new(ctx);
  cg_jit_add(ctx, jit, object->bytes, object->size);
  at_code code = {.fn = (at_kernel_fn)cg_jit_symbol(ctx, jit, "tn_reference"), .scratch_bytes = cg_kernel_scratch(&object->kernels[0], 1)};
  if (!ix_const_value(object->kernels[0].ntasks, &code.tasks)) ir_fail(ctx, TN_EUNSUPPORTED, "the number of tasks depends on dimensions");
  code.layouts = own_layouts(ctx, the.kernel);
  beat();
  j->wrong = at_operands_reference(the.operands, &code, j->sampled);
  cg_jit_free(ctx, jit);
}

static void append(void *user, const void *p, size_t n) {
  (void)user;
  at_put_bytes(&the.out, p, n);
}

static void do_kernel(void) {
  answer a = {AT_OK, ""};
  forget_kernel();
  the.bench_ctx = tn_ctx_new(NULL);
  if (!the.bench_ctx) _exit(AT_EXIT_OOM);
  kernel_job j = {.text = at_get_text(&the.in), .sampled = at_get_int(&the.in) != 0};
  int64_t given = at_get_int(&the.in);
  for (; j.n < given && j.n < AT_MOST_BUFFERS; j.n++) j.reference[j.n] = at_get_bytes(&the.in, &j.bytes[j.n]);
  if (guarded_call(the.bench_ctx, take_kernel, &j, AT_COMPILE_ERROR, &a) && j.wrong) fail(&a, AT_WRONG, j.wrong);
  if (a.status != AT_OK) forget_kernel();
  reply_head(&a);
  at_put_int(&the.out, j.sampled);
  if (the.operands && !j.n) at_operands_export(the.operands, append, NULL);
}

/* ---- loading and checking ---- */

typedef struct load_job {
  loaded *l;
  const char *schedule;
  const void *object;
  size_t size;
  int nlayouts;
  const char **layouts;
  const char *wrong;
} load_job;

static void misbehave(void *user, int stage, void *const *args, int nargs) {
  the.o->misbehave.fn(the.o->misbehave.user, stage ? AT_AFTER_RUN : AT_BEFORE_RUN, user, args, nargs);
}

/* Compiles the kernel that makes a constant. */
static at_made make_maker(tn_ctx *ctx, cg_jit *jit, const char *text, int i) {
  const ir_kernel *k = ir_kernel_parse(ctx, text, "constant");
  const char *symbol = ir_format(ctx, "tn_constant_%d", i);
  const cg_object *object = cg_compile_kernel(ctx, the.o->target, k, symbol);
  cg_jit_add(ctx, jit, object->bytes, object->size);
  at_made m = {.text = text, .code = {.fn = (at_kernel_fn)cg_jit_symbol(ctx, jit, symbol), .tasks = 1, .scratch_bytes = cg_kernel_scratch(&object->kernels[0], 1)}};
  int64_t n;
  if (k->nbufs != 2 || !ix_const_value(ir_buf_elements(ctx, k->bufs[1]), &n)) ir_fail(ctx, TN_EINPUT, "a constant of unknown size");
  m.bytes = n * (int64_t)ir_dtype_bytes(k->bufs[1]->dtype);
  return m;
}

static void load(tn_ctx *ctx, void *arg) {
  load_job *j = arg;
  const ir_kernel *k = the.kernel;
  if (j->nlayouts != k->nbufs) ir_bug(ctx, "%d layouts for %d buffers", j->nlayouts, k->nbufs);
  const ir_layout **layouts = own_layouts(ctx, k);
  at_made *made = IR_NEW_ARRAY(ctx, at_made, k->nbufs + 1);
  cg_jit *jit = cg_jit_new(ctx);
  for (int i = 0; i < k->nbufs; i++) {
    if (k->bufs[i]->constant && strncmp(j->layouts[i], "kernel ", 7) == 0) {
      made[i] = make_maker(ctx, jit, j->layouts[i], i);
      continue;
    }
    layouts[i] = ir_layout_parse(ctx, j->layouts[i]);
    const char *own = k->bufs[i]->layout ? k->bufs[i]->layout->text : "";
    if (!k->bufs[i]->constant && strcmp(own, j->layouts[i]))
      ir_fail(ctx, TN_EINPUT, "the schedule lays out %s, which is no constant", k->bufs[i]->name);
  }
  j->l->code.layouts = layouts;
  j->l->code.made = made;
  j->l->code.error = lw_schedule_error(ctx, k, j->schedule);
  cg_jit_add(ctx, jit, j->object, j->size);
  j->l->code.fn = (at_kernel_fn)cg_jit_symbol(ctx, jit, "tn_candidate");
  if (the.o->threads > 1) {
    if (!the.pool && !(the.pool = rt_pool_new(the.o->threads))) ir_fail(ctx, TN_ERESOURCE, "threads cannot be started");
    j->l->code.threads = rt_pool_threads(the.pool);
  }
  beat();
  j->wrong = at_operands_check(the.operands, ctx, &j->l->code, the.o->misbehave.fn ? misbehave : NULL, (void *)j->schedule);
  if (j->wrong) return;
  beat();
  j->l->args = at_operands_timing(the.operands, ctx, &j->l->code);
}

static void forget_some(void) {
  for (int64_t n = at_get_int(&the.in); n > 0 && !the.in.bad; n--) {
    int64_t id = at_get_int(&the.in);
    for (loaded **at = &the.all; *at; at = &(*at)->next)
      if ((*at)->id == id) {
        loaded *l = *at;
        *at = l->next;
        unload(l);
        break;
      }
  }
}

static void do_load(void) {
  answer a = {AT_OK, ""};
  forget_some();
  loaded *l = calloc(1, sizeof *l);
  if (!l || !(l->ctx = tn_ctx_new(NULL))) _exit(AT_EXIT_OOM);
  load_job j = {.l = l};
  l->id = at_get_int(&the.in);
  j.schedule = at_get_text(&the.in);
  l->code.tasks = at_get_int(&the.in);
  l->code.scratch_bytes = at_get_int(&the.in);
  l->code.phases.nphases = (int)at_get_int(&the.in);
  for (int i = 0; i < CG_MAX_PHASES; i++) l->code.phases.phase[i] = (int32_t)at_get_int(&the.in);
  int64_t n = at_get_int(&the.in);
  const char *layouts[AT_MOST_BUFFERS];
  for (int64_t i = 0; i < n && i < AT_MOST_BUFFERS; i++) layouts[i] = at_get_text(&the.in);
  j.nlayouts = (int)n;
  j.layouts = layouts;
  j.object = at_get_bytes(&the.in, &j.size);
  if (n < 0 || n > AT_MOST_BUFFERS || the.in.bad || !the.operands) fail(&a, AT_COMPILE_ERROR, "more operands than can be measured");
  else {
    the.shared->current = l->id;
    if (guarded_call(l->ctx, load, &j, AT_COMPILE_ERROR, &a) && j.wrong) fail(&a, AT_WRONG, j.wrong);
    the.shared->current = 0;
  }
  if (a.status == AT_OK) {
    l->next = the.all;
    the.all = l;
  } else unload(l);
  reply_head(&a);
}

/* ---- timing ---- */

static double clock_s(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long switches(void) {
  struct rusage u;
  getrusage(the.pool ? RUSAGE_SELF : RUSAGE_THREAD, &u);
  return u.ru_nivcsw;
}

/* A layer of a model finds its constants cold: in memory when the model is large, in the last cache when it is not. What
 * does well with the one may not with the other, and how much of that cache there is goes by the neighbours. So each
 * copy of constants is used when it is nowhere but in memory and, of short calls, again when the caches have it. */
static bool cools(const loaded *l) { return l->args->copies > 1; }
static int copy_at(const loaded *l, int64_t turn) { return (int)(turn % l->args->copies); }

static void call(loaded *l, int64_t times) {
  for (int64_t r = 0; r < times; r++) at_code_run(&l->code, l->args->args[copy_at(l, cools(l) ? the.turn + r / l->args->uses : 0)]);
}

typedef struct sample {
  double wall, cpu; /* seconds; cpu: of one thread, among several there is no telling: the same as wall */
  bool clean;
} sample;

static sample once(loaded *l, int64_t times) {
  sample s;
  int64_t ncold = cools(l) ? (times + l->args->uses - 1) / l->args->uses : 0;
  for (int64_t r = 0; r < ncold; r++) at_arguments_cool(l->args, copy_at(l, the.turn + r));
  long before = switches();
  double cpu = clock_s(CLOCK_THREAD_CPUTIME_ID), start = clock_s(CLOCK_MONOTONIC);
  call(l, times);
  s.wall = clock_s(CLOCK_MONOTONIC) - start;
  the.turn += ncold;
  s.cpu = the.pool ? s.wall : clock_s(CLOCK_THREAD_CPUTIME_ID) - cpu;
  double off = s.wall > s.cpu ? s.wall - s.cpu : s.cpu - s.wall;
  s.clean = switches() == before && off < 5e-6 + 0.02 * s.wall;
  return s;
}

static const double sample_s = 200e-6;

/* How many calls make a sample: no more than there are cold copies for. The first call after others is not
 * representative, but close. */
static void calibrate(loaded *l) {
  int64_t uses = cools(l) ? l->args->uses : 1, most = cools(l) ? uses * l->args->copies : 1 << 24;
  call(l, 1);
  for (int64_t reps = uses;; reps *= 4) {
    if (reps > most) reps = most;
    sample s = once(l, reps);
    beat();
    if (s.cpu < sample_s / 4 && reps < most) continue;
    double each = s.cpu / (double)reps, want = each > 0 ? sample_s / each : 1;
    l->reps = want < 1 ? uses : ((int64_t)want + uses) / uses * uses;
    if (l->reps > most) l->reps = most;
    return;
  }
}

/* Nanoseconds of one call. Disturbed samples are taken again, some times. */
static double take(loaded *l, bool *disturbed) {
  enum { TRIES = 3 };
  if (!l->reps) calibrate(l);
  double least = 0;
  for (int i = 0; i < TRIES; i++) {
    sample s = once(l, l->reps);
    beat();
    *disturbed = !s.clean;
    if (s.clean) return s.wall / (double)l->reps * 1e9;
    if (i == 0 || s.cpu < least) least = s.cpu;
    if (s.wall > 20e-3) break; /* a long call will be disturbed again */
  }
  return least / (double)l->reps * 1e9;
}

static loaded *find(int64_t id) {
  for (loaded *l = the.all; l; l = l->next)
    if (l->id == id) return l;
  return NULL;
}

static void do_time(void) {
  answer a = {AT_OK, ""};
  int64_t first = at_get_int(&the.in), rounds = at_get_int(&the.in), n = at_get_int(&the.in);
  loaded *l[AT_MOST_TIMED];
  for (int64_t i = 0; i < n && i < AT_MOST_TIMED; i++)
    if (!(l[i] = find(at_get_int(&the.in)))) fail(&a, AT_COMPILE_ERROR, "no such candidate");
  if (n > AT_MOST_TIMED) fail(&a, AT_COMPILE_ERROR, "too many candidates at once");
  reply_head(&a);
  if (a.status != AT_OK) return;
  double ns[AT_MOST_TIMED];
  bool disturbed[AT_MOST_TIMED];
  the.shared->rounds = 0;
  for (int64_t r = 0; r < rounds; r++) {
    for (int64_t k = 0; k < n; k++) {
      int64_t turn = first + r, i = ((turn & 1 ? n - 1 - k : k) + turn / 2) % n; /* there and back, from another one each time */
      the.shared->current = l[i]->id;
      if (n > 1 && l[i]->reps > 1) call(l[i], l[i]->reps > 16 ? l[i]->reps / 8 : 1); /* caches and predictors are another's */
      ns[i] = take(l[i], &disturbed[i]);
    }
    for (int64_t i = 0; i < n; i++) at_put_real(&the.out, ns[i]), at_put_int(&the.out, disturbed[i]);
    the.shared->rounds = r + 1;
  }
  the.shared->current = 0;
}

/* ---- the machine ---- */

enum { PROBES = 400 }; /* of some ten microseconds: a processor that was idle takes milliseconds to come to its speed */

static double measure_ghz(void) {
  double best = 0;
  for (int i = 0; i < PROBES / 8; i++) {
    uint64_t x = 1;
    double start = rt_now();
#pragma GCC unroll 16 /* not every loop of two instructions takes a cycle: some take two, by where they lie */
    for (int k = 0; k < 100000; k++) {
      x++;
      __asm__ volatile("" : "+r"(x)); /* a chain of one addition a cycle */
    }
    double ghz = 100000.0 / (rt_now() - start) * 1e-9;
    if (ghz > best) best = ghz;
  }
  return best;
}

typedef struct peak_job {
  double gflops;
} peak_job;

static void measure_peak(tn_ctx *ctx, void *arg) {
  peak_job *j = arg;
  const cg_target *t = the.o->target;
  int lanes = cg_target_lanes(t, TN_F32), rows = t->vector_regs >= 32 ? 24 : 12, steps = 4096;
  const char *text = ir_format(ctx,
                               "kernel peak(in x: f32[1], out y: f32[%d, %d]) {\n"
                               "  alloc acc: f32[%d, %d] register\n"
                               "  let b = x[0]\n"
                               "  for i in 0 .. %d unroll { for v in 0 .. %d vector { acc[i, v] = 0.0 } }\n"
                               "  for k in 0 .. %d {\n"
                               "    for i2 in 0 .. %d unroll { for v2 in 0 .. %d vector { acc[i2, v2] = fma(b, b, acc[i2, v2]) } }\n"
                               "  }\n"
                               "  for i3 in 0 .. %d unroll { for v3 in 0 .. %d vector { y[i3, v3] = acc[i3, v3] } }\n"
                               "}\n",
                               rows, lanes, rows, lanes, rows, lanes, steps, rows, lanes, rows, lanes);
  const ir_kernel *k = ir_kernel_parse(ctx, text, "peak");
  const char *wrong = ir_kernel_verify(ctx, k);
  if (wrong) ir_fail(ctx, TN_EINTERNAL, "%s", wrong);
  const cg_object *o = cg_compile_kernel(ctx, t, k, "tn_peak");
  cg_jit *jit = cg_jit_new(ctx);
  cg_jit_add(ctx, jit, o->bytes, o->size);
  at_kernel_fn fn = (at_kernel_fn)cg_jit_symbol(ctx, jit, "tn_peak");
  void *args[3] = {ir_alloc(ctx, 64), ir_alloc(ctx, (size_t)(rows * lanes) * 4 + 64), ir_alloc(ctx, (size_t)cg_kernel_scratch(&o->kernels[0], 1) + 64)};
  double best = 1e30;
  for (int i = 0; i < PROBES; i++) {
    double start = rt_now();
    fn(args, 0, 0);
    double s = rt_now() - start;
    if (s < best && s > 0) best = s;
  }
  j->gflops = 2.0 * rows * lanes * steps / best * 1e-9;
  cg_jit_free(ctx, jit);
}

static void do_probe(void) {
  answer a = {AT_OK, ""};
  peak_job j = {0};
  double start = rt_now();
  tn_ctx *ctx = tn_ctx_new(NULL);
  if (!ctx) _exit(AT_EXIT_OOM);
  guarded_call(ctx, measure_peak, &j, AT_COMPILE_ERROR, &a);
  tn_ctx_free(ctx);
  reply_head(&a);
  at_put_real(&the.out, measure_ghz());
  at_put_real(&the.out, j.gflops);
  at_put_real(&the.out, rt_now() - start);
}

void at_worker_main(int fd, at_shared *shared, const at_lab_options *o) {
  the = (worker){.fd = fd, .shared = shared, .o = o};
  catch_faults();
  while (at_frame_receive(fd, &the.in)) {
    beat();
    switch ((at_request)at_get_int(&the.in)) {
    case AT_DO_COMPILE: do_compile(); break;
    case AT_DO_KERNEL: do_kernel(); break;
    case AT_DO_LOAD: do_load(); break;
    case AT_DO_TIME: do_time(); break;
    case AT_DO_PROBE: do_probe(); break;
    }
    if (!at_frame_send(fd, &the.out)) break;
  }
  _exit(0);
}
