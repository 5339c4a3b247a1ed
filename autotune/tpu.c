/* tpu.c — see tpu.h. */
#include "autotune/tpu.h"
#include "autotune/lookup.h"
#include "autotune/tune.h"
#include "ir/text.h"
#include "lower/problem.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- tiles as text ---- */

static const char *const rests[] = {"any", "b", "a"};

const char *at_tpu_tiles_print(tn_ctx *ctx, const tpu_tunables *t) {
  if (!t->rows && !t->columns && !t->stationary && !t->vector) return "";
  return ir_format(ctx, "rows %lld columns %lld rests %s lanes %lld\n", (long long)t->rows, (long long)t->columns, rests[t->stationary], (long long)t->vector);
}

bool at_tpu_tiles_parse(const char *s, tpu_tunables *t) {
  long long rows, columns, lanes;
  char word[8];
  *t = (tpu_tunables){0};
  if (!*s) return true;
  if (sscanf(s, "rows %lld columns %lld rests %7s lanes %lld", &rows, &columns, word, &lanes) != 4 || rows < 0 || columns < 0 || lanes < 0) return false;
  *t = (tpu_tunables){.rows = rows, .columns = columns, .vector = lanes, .stationary = -1};
  for (int k = 0; k < IR_COUNT(rests); k++)
    if (strcmp(word, rests[k]) == 0) t->stationary = k;
  return t->stationary >= 0;
}

/* ---- keys: a time is one of the whole program, so that is in them ---- */

static void calls(tn_ctx *ctx, ir_text *t, const ir_program *p, int n, const ir_inst *insts) {
  for (int i = 0; i < n; i++) {
    if (insts[i].kind == IR_CALL) ir_put(t, "%s\n", at_kernel_hash(ctx, p->kernels[insts[i].kernel].kernel));
    calls(ctx, t, p, insts[i].nbody, insts[i].body);
    calls(ctx, t, p, insts[i].nother, insts[i].other);
  }
}

static const char *policy_of(tn_ctx *ctx, const at_tpu_task *t) {
  ir_text all = {.ctx = ctx};
  calls(ctx, &all, t->program, t->program->nrun, t->program->run);
  uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
  for (const char *s = ir_text_str(&all); *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
  return ir_format(ctx, "cycles of program %016llx, %s, cores %d", (unsigned long long)h, t->precision ? t->precision : "as it is", t->cores);
}

static at_key key_of(tn_ctx *ctx, const at_tpu_task *t, const char *policy, int kernel) {
  return (at_key){ir_kernel_canonical(ctx, t->program->kernels[kernel].kernel), ir_format(ctx, "tpu\n%s", tpu_machine_print(ctx, t->machine)), policy,
                  ir_format(ctx, "tpu%d", TPU_COMPILER_VERSION)};
}

/* The first kernel of the same text: they have their tiles in common. */
static int *leaders(tn_ctx *ctx, const ir_program *p) {
  int *first = IR_NEW_ARRAY(ctx, int, p->nkernels + 1);
  const char **hash = IR_NEW_ARRAY(ctx, const char *, p->nkernels + 1);
  for (int k = 0; k < p->nkernels; k++) {
    hash[k] = at_kernel_hash(ctx, p->kernels[k].kernel);
    for (first[k] = 0; strcmp(hash[first[k]], hash[k]); first[k]++) continue;
  }
  return first;
}

static bool called(int n, const ir_inst *insts, int kernel) {
  for (int i = 0; i < n; i++)
    if ((insts[i].kind == IR_CALL && insts[i].kernel == kernel) || called(insts[i].nbody, insts[i].body, kernel) || called(insts[i].nother, insts[i].other, kernel)) return true;
  return false;
}

/* ---- trials ---- */

typedef struct tuner {
  tn_ctx *ctx;
  const at_tpu_task *t;
  const at_tpu_options *o;
  at_tpu_result r;
  const int *leader;
  tpu_tunables *best; /* by kernel */
  const char *policy;
  at_run *run;
  double start;
  int cores;
  tpu_layout layout; /* as the first trial found them best */
  int64_t cycles;    /* of the last trial */
} tuner;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void time_it(tn_ctx *ctx, void *arg) {
  tuner *u = arg;
  const at_tpu_task *t = u->t;
  tpu_options o = {.tiles = u->r.tiles, .weights = t->weights, .cores = u->cores, .layout = u->layout};
  u->cycles = rt_tpu_cycles(ctx, t->machine, rt_tpu_program(ctx, t->program, t->machine, &o));
  u->cores = o.cores;
  u->layout = o.layout;
}

/* Cycles with the tiles as they are; INT64_MAX where there is no such program, *why says why. */
static int64_t measure(tuner *u, const char **why) {
  tn_ctx *child = ir_ctx_child(u->ctx);
  if (!child) ir_fail(u->ctx, TN_ERESOURCE, "out of memory");
  tn_status s = ir_protect(child, time_it, u);
  *why = s ? ir_strdup(u->ctx, ir_error(child)) : NULL;
  tn_ctx_free(child);
  u->r.trials++;
  return s ? INT64_MAX : u->cycles;
}

static void set_tiles(tuner *u, int kernel, const tpu_tunables *t) {
  for (int k = 0; k < u->t->program->nkernels; k++)
    if (u->leader[k] == kernel) u->r.tiles[k] = *t;
}

/* Candidate `i` of a contraction: fewer rows start what follows the sums earlier, more rows fetch weights less often. */
static bool tile_candidate(const tpu_machine *m, int i, tpu_tunables *t) {
  enum { PARTS = 5 };
  *t = (tpu_tunables){.stationary = 1 + i % 2};
  i /= 2;
  t->columns = tpu_tile_cols(m) / (1 + i / PARTS);
  t->rows = m->acc_bytes / 8 / (t->columns > 0 ? t->columns : 1) >> i % PARTS;
  return i < 2 * PARTS && t->rows > 0 && t->columns > 0;
}

static bool candidate(const tuner *u, int kernel, int i, tpu_tunables *t) {
  if (lw_problem_of(u->ctx, u->t->program->kernels[kernel].kernel).kind == LW_CONTRACTION) return tile_candidate(u->t->machine, i, t);
  *t = (tpu_tunables){.vector = u->t->machine->ub_bytes / 64 >> (2 * i + 2)}; /* smaller pieces come and go beside others */
  return i < 4 && t->vector >= u->t->machine->lanes;
}

static void keep(tuner *u, int kernel, const at_key *key, const tpu_tunables *t, int64_t cycles, const char *why) {
  const ir_kernel *k = u->t->program->kernels[kernel].kernel;
  double ns = (double)cycles / u->t->machine->clock_mhz * 1e3;
  at_trial row = {.key = *key, .klass = at_class(u->ctx, k), .name = k->name, .schedule = at_tpu_tiles_print(u->ctx, t), .origin = "tiles"};
  if (why) row.status = AT_REFUSED, row.reason = why;
  else row.samples = &ns, row.n = 1, row.cost_ns = ns;
  at_store_add_trials(u->o->store, u->run, &row, 1);
}

/* Cycles of a candidate: as the store knows them, or by trial. */
static int64_t cycles_of(tuner *u, int kernel, const at_key *key, const at_seen *seen, int nseen, const tpu_tunables *t) {
  const at_seen *s = at_seen_find(seen, nseen, at_tpu_tiles_print(u->ctx, t));
  if (s) {
    u->r.known++;
    return s->status == AT_OK ? (int64_t)(s->cost_ns * u->t->machine->clock_mhz * 1e-3 + 0.5) : INT64_MAX;
  }
  const char *why;
  set_tiles(u, kernel, t);
  int64_t cycles = measure(u, &why);
  keep(u, kernel, key, t, cycles, why);
  return cycles;
}

static bool spent(const tuner *u) { return (u->o->stop && *u->o->stop) || (u->o->budget_s > 0 && now() - u->start > u->o->budget_s); }

static void tune_kernel(tuner *u, int kernel) {
  at_key key = key_of(u->ctx, u->t, u->policy, kernel);
  int nseen = 0;
  const at_seen *seen = at_store_seen(u->o->store, &key, &nseen);
  tpu_tunables none = {0}, best = none, t;
  int64_t least = u->r.first;
  if (!at_seen_find(seen, nseen, "")) keep(u, kernel, &key, &none, least, NULL);
  for (int i = 0; candidate(u, kernel, i, &t) && (!u->o->trials || i < u->o->trials); i++) {
    if (spent(u)) {
      u->r.stopped = true;
      break;
    }
    int64_t cycles = cycles_of(u, kernel, &key, seen, nseen, &t);
    if (cycles >= least) continue;
    least = cycles;
    best = t;
  }
  set_tiles(u, kernel, &none);
  u->best[kernel] = best;
  u->r.cycles[kernel] = least;
}

/* All winners together: times of one each need not add up. */
static void join_winners(tuner *u) {
  const char *why;
  int n = u->t->program->nkernels;
  for (int k = 0; k < n; k++) {
    u->r.tiles[k] = u->best[u->leader[k]];
    u->r.changed += u->leader[k] == k && *at_tpu_tiles_print(u->ctx, &u->best[k]) != 0;
  }
  u->r.last = u->r.changed ? measure(u, &why) : u->r.first;
  if (u->r.last <= u->r.first) return;
  memset(u->r.tiles, 0, (size_t)n * sizeof *u->r.tiles);
  u->r.changed = 0;
  u->r.last = u->r.first;
}

at_tpu_result at_tpu_tune(tn_ctx *ctx, const at_tpu_task *t, const at_tpu_options *o) {
  const ir_program *p = t->program;
  tuner u = {.ctx = ctx, .t = t, .o = o, .leader = leaders(ctx, p), .policy = policy_of(ctx, t), .start = now(), .cores = t->cores};
  u.r.tiles = IR_NEW_ARRAY(ctx, tpu_tunables, p->nkernels + 1);
  u.best = IR_NEW_ARRAY(ctx, tpu_tunables, p->nkernels + 1);
  u.r.cycles = IR_NEW_ARRAY(ctx, int64_t, p->nkernels + 1);
  const char *why;
  u.r.first = measure(&u, &why);
  if (why) ir_fail(ctx, TN_EUNSUPPORTED, "%s", why);
  at_run_info info = {.env = {.target = ir_format(ctx, "tpu:%s", t->machine->name), .library = ir_format(ctx, "tenon tpu%d", TPU_COMPILER_VERSION)},
                      .budget_s = o->budget_s, .budget_trials = o->trials, .label = o->label};
  u.run = o->store ? at_run_begin(o->store, &info) : NULL;
  for (int k = 0; k < p->nkernels && !u.r.stopped; k++)
    if (u.leader[k] == k && called(p->nrun, p->run, k)) tune_kernel(&u, k);
  join_winners(&u);
  if (u.run) at_run_end(o->store, u.run, NULL, 0);
  return u.r;
}

tpu_tunables *at_tpu_lookup(tn_ctx *ctx, const at_tpu_task *t, at_store *store) {
  const ir_program *p = t->program;
  tpu_tunables *tiles = IR_NEW_ARRAY(ctx, tpu_tunables, p->nkernels + 1);
  const char *policy = policy_of(ctx, t);
  bool any = false;
  for (int k = 0; k < p->nkernels && store; k++) {
    at_key key = key_of(ctx, t, policy, k);
    at_winner w;
    if (!at_store_best(store, &key, &w) || w.stale || !at_tpu_tiles_parse(w.schedule, &tiles[k])) tiles[k] = (tpu_tunables){0};
    else any |= *w.schedule != 0;
  }
  return any ? tiles : NULL;
}
