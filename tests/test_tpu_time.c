/* Times of the simulated machine: SCALE-Sim's closed form as results of instructions, properties that hold
 * for any program, faults that are reported, and the TPU v1 paper's Table 3. */
#include "runtime/tpu_sim.h"
#include "tests/tpu_random.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Runs in a context of its own; a fault of the program comes back as its message. */
typedef struct job {
  const tpu_machine *m;
  const tpu_program *p;
  const tpu_sim_options *o;
  const void *const *in;
  void *const *out;
  tpu_result result;
} job;

static void run_job(tn_ctx *ctx, void *arg) {
  job *j = arg;
  j->result = *tpu_simulate(ctx, j->m, j->p, j->o, j->in, j->out, NULL);
}

static tn_status simulate(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p, const tpu_sim_options *o, tpu_result *r) {
  job j = {m, p, o, NULL, NULL, {0}};
  tn_status s = ir_protect(ctx, run_job, &j);
  *r = j.result;
  return s;
}

static tpu_operand ub(tn_dtype t, int64_t addr, int32_t pitch) { return tpu_at(TPU_UB, t, addr, 0, 0, pitch, 1); }
static tpu_operand dram(tn_dtype t, int64_t addr, int32_t pitch) { return tpu_at(TPU_DRAM, t, addr, 0, 0, pitch, 1); }
static tpu_operand acc(tn_dtype t, int64_t addr, int32_t pitch) { return tpu_at(TPU_ACC, t, addr, 0, 0, pitch, 1); }

static tpu_inst box(tpu_opcode op, tpu_operand dst, tpu_operand src, int64_t rows, int64_t cols) {
  tpu_inst i = tpu_inst_of(op);
  i.dst = dst;
  i.src = src;
  i.extent[2] = (int32_t)rows;
  i.extent[3] = (int32_t)cols;
  return i;
}

static tpu_inst tile(tpu_operand src, int64_t k, int64_t n) {
  tpu_inst i = tpu_inst_of(TPU_WEIGHTS);
  i.src = src;
  i.extent[2] = (int32_t)k;
  i.extent[3] = (int32_t)n;
  return i;
}

static tpu_inst product(tpu_operand dst, tpu_operand src, int64_t m, int64_t n, int64_t k, int flags) {
  tpu_inst i = box(TPU_MATMUL, dst, src, m, n);
  i.flags = (uint8_t)flags;
  i.win.kc = i.win.k_count = (int32_t)k;
  return i;
}

/* ================================================================ SCALE-Sim ==== */

/* A layer by folds of the stationary operand, loops unrolled. Operand 1 is resident or, output stationary,
 * streams along; addresses lie where the values would. */
static tpu_program *folds(tn_ctx *ctx, const tpu_machine *m, int64_t M, int64_t N, int64_t K) {
  tpu_program *p = tpu_program_new(ctx, m->name, 1);
  p->dram_bytes = up(K * (M + N), 64) * 64;
  int64_t rows = m->dataflow == TPU_OS ? M : K, cols = m->dataflow == TPU_IS ? M : N, stream = m->dataflow == TPU_OS ? K : m->dataflow == TPU_WS ? M : N;
  tpu_program_tag(ctx, p, (tpu_tag){.name = "layer", .M = M, .N = N, .K = K, .macs = M * N * K});
  tpu_inst tag = tpu_inst_of(TPU_TAG);
  tag.imm = 1;
  tpu_emit(ctx, p, 0, tag);
  for (int64_t r = 0; r < rows; r += m->rows)
    for (int64_t c = 0; c < cols; c += m->cols) {
      int64_t nr = least(m->rows, rows - r), nc = least(m->cols, cols - c);
      if (m->dataflow == TPU_OS) {
        tpu_emit(ctx, p, 0, tile(dram(TN_I8, c, (int32_t)N), K, nc));
        tpu_emit(ctx, p, 0, product(acc(TN_I32, (r * N + c) * 4, (int32_t)N), ub(TN_I8, r * K, (int32_t)K), nr, nc, K, TPU_SWAP));
      } else {
        tpu_emit(ctx, p, 0, tile(dram(TN_I8, r * cols + c, (int32_t)cols), nr, nc));
        tpu_emit(ctx, p, 0, product(acc(TN_I32, c * 4, (int32_t)cols), ub(TN_I8, r, (int32_t)K), stream, nc, nr, TPU_SWAP | (r ? TPU_ACCUMULATE : 0)));
      }
    }
  return p;
}

/* The closed form of shared facts: no part of the engine. */
static int64_t closed_form(const tpu_machine *m, int64_t M, int64_t N, int64_t K) {
  int64_t sr = m->dataflow == TPU_OS ? M : K, sc = m->dataflow == TPU_IS ? M : N, t = m->dataflow == TPU_OS ? K : m->dataflow == TPU_WS ? M : N;
  int64_t fold = (m->dataflow == TPU_OS ? 0 : m->rows) + t + m->rows + m->cols - 2;
  return up(sr, m->rows) * up(sc, m->cols) * fold - 1;
}

static tpu_machine scalesim(tn_ctx *ctx, tpu_random *r) {
  static const char *const flows[] = {"os", "ws", "is"};
  return *tpu_machine_find(ctx, ir_format(ctx, "scalesim-%s-%dx%d", flows[tpu_between(r, 0, 2)], (int)tpu_between(r, 1, 40), (int)tpu_between(r, 1, 40)));
}

static const tpu_sim_options calc = {.timing = TPU_TIMING_SCALESIM, .no_values = true, .faults = true};

Test(tpu_time, scalesim_totals_and_accesses) {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tpu_random r = {seed};
    tpu_machine m = scalesim(ctx, &r);
    int64_t M = tpu_between(&r, 1, 200), N = tpu_between(&r, 1, 200), K = tpu_between(&r, 1, 300);
    tpu_result v;
    cr_assert_eq(simulate(ctx, &m, folds(ctx, &m, M, N, K), &calc, &v), TN_OK, "%s", tn_error(ctx));
    cr_assert_eq(v.tags[1].reported, closed_form(&m, M, N, K), "%s %dx%dx%d", m.name, (int)M, (int)N, (int)K);
    cr_assert_eq(v.cycles, closed_form(&m, M, N, K) + 1);
    bool os = m.dataflow == TPU_OS, is = m.dataflow == TPU_IS;
    int64_t fr = up(os ? M : K, m.rows), fc = up(is ? M : N, m.cols);
    const tpu_counts *n = &v.tags[1].counts;
    cr_assert_eq(n->sram_ifmap_reads, is ? M * K : M * K * fc);
    cr_assert_eq(n->sram_filter_reads, os ? K * N * fr : is ? K * N * fc : K * N);
    cr_assert_eq(n->sram_ofmap_writes, os ? M * N + fr * fc * (m.rows + m.cols) : M * N * fr);
    cr_assert_eq(n->macs, M * N * K);
    tpu_sim_options honest = calc;
    honest.faults = false;
    cr_assert_eq(simulate(ctx, &m, folds(ctx, &m, M, N, K), &honest, &v), TN_OK);
    cr_assert_eq(v.tags[1].reported, closed_form(&m, M, N, K) + 1);
    cr_assert_eq(v.tags[1].counts.sram_ofmap_writes, os ? M * N : M * N * fr);
    tn_ctx_free(ctx);
  }
}

/* The count is that of the instructions: one more or one less is another count, or an error. */
Test(tpu_time, scalesim_counts_every_instruction) {
  for (uint64_t seed = 1; seed <= 60; seed++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tpu_random r = {seed};
    tpu_machine m = scalesim(ctx, &r);
    int64_t M = tpu_between(&r, 1, 100), N = tpu_between(&r, 1, 100), K = tpu_between(&r, 1, 100);
    for (int64_t at = 1; at < folds(ctx, &m, M, N, K)->core[0].n && at < 30; at++)
      for (int twice = 0; twice < 2; twice++) {
        tpu_program *p = folds(ctx, &m, M, N, K);
        tpu_core_text *t = &p->core[0];
        tpu_inst *changed = IR_NEW_ARRAY(ctx, tpu_inst, t->n + 1);
        memcpy(changed, t->insts, (size_t)(at + twice) * sizeof *changed);
        memcpy(changed + at + twice, t->insts + at + (twice ? 0 : 1), (size_t)(t->n - at - (twice ? 0 : 1)) * sizeof *changed);
        t->insts = changed;
        t->n += twice ? 1 : -1;
        tpu_result v;
        tn_status s = simulate(ctx, &m, p, &calc, &v);
        cr_assert(s == TN_EINPUT || v.tags[1].reported != closed_form(&m, M, N, K), "%s: instruction %lld does not count", m.name, (long long)at);
      }
    tn_ctx_free(ctx);
  }
}

/* A repeat costs its count times its body, whether it is run or multiplied. */
Test(tpu_time, repeats_multiply) {
  for (uint64_t seed = 1; seed <= 100; seed++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tpu_random r = {seed};
    tpu_machine m = scalesim(ctx, &r);
    m.ub_bytes = m.acc_bytes = 1 << 20;
    int64_t outer = tpu_between(&r, 1, 6), inner = tpu_between(&r, 1, 6), T = tpu_between(&r, 1, 30);
    tpu_program *loop = tpu_program_new(ctx, m.name, 1), *flat = tpu_program_new(ctx, m.name, 1);
    loop->dram_bytes = flat->dram_bytes = 4096;
    int64_t rows = m.dataflow == TPU_OS ? 1 : T, k = m.dataflow == TPU_OS ? T : 1;
    tpu_inst body[2] = {tile(dram(TN_I8, 0, 1), k, 1), product(acc(TN_I32, 0, 1), ub(TN_I8, 0, (int32_t)k), rows, 1, k, TPU_SWAP)};
    tpu_inst turn = tpu_inst_of(TPU_REPEAT);
    turn.imm = outer;
    turn.span = 3 + 2;
    tpu_emit(ctx, loop, 0, turn);
    turn.imm = inner;
    turn.span = 2;
    tpu_emit(ctx, loop, 0, turn);
    for (int c = 0; c < 4; c++) tpu_emit(ctx, loop, 0, body[c % 2]);
    for (int64_t k2 = 0; k2 < outer * (inner + 1); k2++)
      for (int c = 0; c < 2; c++) tpu_emit(ctx, flat, 0, body[c]);
    tpu_result a, b, c;
    tpu_sim_options slow = {.timing = TPU_TIMING_SCALESIM, .no_checks = true}; /* with values nothing is multiplied */
    job j = {&m, loop, &slow, NULL, NULL, {0}};
    cr_assert_eq(simulate(ctx, &m, loop, &calc, &a), TN_OK, "%s", tn_error(ctx));
    cr_assert_eq(simulate(ctx, &m, flat, &calc, &b), TN_OK, "%s", tn_error(ctx));
    cr_assert_eq(ir_protect(ctx, run_job, &j), TN_OK, "%s", tn_error(ctx));
    c = j.result;
    cr_assert_eq(a.cycles, b.cycles);
    cr_assert_eq(a.cycles, c.cycles);
    cr_assert(a.all.macs == b.all.macs && a.all.macs == c.all.macs && a.all.matmuls == b.all.matmuls && a.all.cycles.weight_shift == b.all.cycles.weight_shift);
    turn.imm = (int64_t)1 << 40; /* and takes no time */
    loop->core[0].insts[0].imm = 1 << 20;
    loop->core[0].insts[1].imm = 1 << 18;
    cr_assert_eq(simulate(ctx, &m, loop, &calc, &a), TN_OK, "%s", tn_error(ctx));
    cr_assert_eq(a.all.matmuls, ((int64_t)1 << 20) * ((1 << 18) + 1));
    tn_ctx_free(ctx);
  }
}

/* ================================================================ any program ==== */

enum { SLOTS = 6, SLOT = 8192, ACCS = 3, TILE = 16 };

typedef struct maker {
  tn_ctx *ctx;
  tpu_random *r;
  tpu_program *p;
  int core;
  int64_t count[TPU_UNITS];
  int64_t wrote[SLOTS + ACCS][TPU_UNITS], read[SLOTS + ACCS][TPU_UNITS]; /* number of the last instruction + 1, by unit */
  bool ready[SLOTS + ACCS];
  int64_t dram_read;
  bool careless; /* leaves a wait out now and then */
} maker;

static void needs(maker *k, tpu_inst *i, int slot, bool write) {
  for (int u = 1; u < TPU_UNITS; u++) {
    int64_t last = k->wrote[slot][u];
    if (write && k->read[slot][u] > last) last = k->read[slot][u];
    if (!last || (k->careless && !tpu_between(k->r, 0, 4))) continue;
    uint16_t back = (uint16_t)(k->count[u] - last + 1);
    if (!i->after[u] || back < i->after[u]) i->after[u] = back;
  }
}

static void emit(maker *k, tpu_inst i, int reads, int writes, int also) {
  int unit = tpu_ops[i.op].unit;
  if (reads >= 0) needs(k, &i, reads, false);
  if (also >= 0) needs(k, &i, also, false);
  if (writes >= 0) needs(k, &i, writes, true);
  i.after[unit] = 0; /* in order by itself */
  tpu_emit(k->ctx, k->p, k->core, i);
  k->count[unit]++;
  if (reads >= 0) k->read[reads][unit] = k->count[unit];
  if (also >= 0) k->read[also][unit] = k->count[unit];
  if (writes >= 0) {
    k->wrote[writes][unit] = k->count[unit];
    k->ready[writes] = true;
  }
}

static int a_slot(maker *k, bool ready, int from, int n) {
  for (int t = 0; t < 20; t++) {
    int s = from + (int)tpu_between(k->r, 0, n - 1);
    if (!ready || k->ready[s]) return s;
  }
  return -1;
}

/* One of: load, store, host, a product with its tile, a vector operation. Slots of 8 KiB hold 64 x 32 f32. */
static void random_action(maker *k) {
  tpu_random *r = k->r;
  int64_t n = tpu_between(r, 1, 32);
  int s = a_slot(k, true, 0, SLOTS), d = a_slot(k, false, 0, SLOTS), a = a_slot(k, true, SLOTS, ACCS);
  int64_t home = k->core * 65536;
  switch (tpu_between(r, 0, 5)) {
  case 0: case 1:
    emit(k, box(tpu_between(r, 0, 3) ? TPU_LOAD : TPU_HOST, ub(TN_F32, d * SLOT, 32), dram(TN_F32, home + tpu_between(r, 0, 1) * SLOT, 32), 64, 32), -1, d, -1);
    k->dram_read += 64 * 32 * 4;
    return;
  case 2:
    if (s >= 0) emit(k, box(TPU_STORE, dram(TN_F32, home + 32768 + s * 4096, 16), ub(TN_F32, s * SLOT, 32), 64, n < 16 ? n : 16), s, -1, -1);
    return;
  case 3: {
    if (s < 0) return;
    int to = SLOTS + (int)tpu_between(r, 0, ACCS - 1);
    tpu_emit(k->ctx, k->p, k->core, tile(dram(TN_F32, home + 16384, 32), TILE, TILE));
    k->count[TPU_UNIT_WEIGHTS]++;
    k->dram_read += TILE * TILE * 4;
    emit(k, product(acc(TN_F32, (to - SLOTS) * SLOT, 32), ub(TN_F32, s * SLOT, 32), 32, TILE, TILE, TPU_SWAP | (k->ready[to] ? TPU_ACCUMULATE : 0)), s, to, -1);
    if (!k->ready[to]) k->ready[to] = true;
    return;
  }
  case 4: {
    if (a < 0) return;
    tpu_inst i = box(TPU_VECTOR, ub(TN_F32, d * SLOT, 32), acc(TN_F32, (a - SLOTS) * SLOT, 32), 1, 1);
    i.fn = IX_NEG;
    if (!k->ready[d]) return; /* parts of it stay undefined */
    emit(k, i, a, d, -1);
    return;
  }
  default: {
    int t = a_slot(k, true, 0, SLOTS);
    if (s < 0 || t < 0) return;
    tpu_inst i = box(TPU_VECTOR, ub(TN_F32, d * SLOT, 32), ub(TN_F32, s * SLOT, 32), 64, 32);
    i.fn = tpu_next(r) & 1 ? IX_ADD : IX_DIV;
    i.b = ub(TN_F32, t * SLOT, 32);
    emit(k, i, s, d, t);
  }
  }
}

static tpu_program *random_program(tn_ctx *ctx, tpu_random *r, const tpu_machine *m, int cores, bool careless, int64_t *dram_read) {
  tpu_program *p = tpu_program_new(ctx, m->name, cores);
  p->dram_bytes = 65536 * cores;
  *dram_read = 0;
  for (int t = 0; t < 5; t++) tpu_program_tag(ctx, p, (tpu_tag){.name = "t"});
  for (int c = 0; c < cores; c++) {
    float *w = IR_NEW_ARRAY(ctx, float, 8192);
    for (int k = 0; k < 8192; k++) w[k] = (float)tpu_between(r, -4, 4);
    tpu_program_segment(ctx, p, (tpu_segment){.name = "w", .kind = TPU_SEG_WEIGHTS, .addr = c * 65536, .bytes = 32768, .data = w});
    tpu_program_segment(ctx, p, (tpu_segment){.name = "s", .kind = TPU_SEG_SCRATCH, .addr = c * 65536 + 32768, .bytes = 32768});
    maker k = {.ctx = ctx, .r = r, .p = p, .core = c, .careless = careless};
    tpu_inst tag = tpu_inst_of(TPU_TAG);
    for (int n = 0; n < 60; n++) {
      if (!tpu_between(r, 0, 9)) {
        tag.imm = tpu_between(r, 0, 5);
        tpu_emit(ctx, p, c, tag);
      }
      if (!tpu_between(r, 0, 30)) tpu_emit(ctx, p, c, tpu_inst_of(TPU_FENCE));
      random_action(&k);
    }
    *dram_read += k.dram_read;
  }
  return p;
}

static tpu_machine random_machine(tn_ctx *ctx, tpu_random *r) {
  tpu_machine m = *tpu_machine_find(ctx, "tpu-v4");
  m.rows = TILE;
  m.cols = TILE;
  m.arrays = 1;
  m.f32 = (double)tpu_between(r, 1, 5) / 2;
  m.dram_gbps = (double)tpu_between(r, 1, 40);
  m.host_gbps = (double)tpu_between(r, 0, 10);
  m.dram_latency = (double)tpu_between(r, 0, 300);
  m.channels = tpu_between(r, 1, 3);
  m.fifo_depth = tpu_between(r, 1, 4);
  m.queue_depth = tpu_between(r, 1, 12);
  m.lanes = tpu_between(r, 1, 64);
  m.pad_tiles = tpu_between(r, 0, 1);
  m.matmul_overhead = tpu_between(r, 0, 9);
  m.launch_cycles = (double)tpu_between(r, 0, 90);
  m.join_cycles = (double)tpu_between(r, 0, 90);
  m.near_bytes = 0; /* dram_gbps counts */
  m.window_depth = tpu_between(r, 0, 3) * TILE / 2;
  return m;
}

static void sound(const tpu_cycles *c) {
  cr_assert(c->active >= 0 && c->weight_stall >= 0 && c->weight_shift >= 0 && c->raw_stall >= 0 && c->input_stall >= 0 && c->other_stall >= 0);
  cr_assert_eq(c->non_matrix, c->raw_stall + c->input_stall + c->other_stall);
  cr_assert_eq(c->total, c->active + c->weight_stall + c->weight_shift + c->non_matrix);
}

typedef struct watch {
  int64_t start[TPU_MAX_CORES][TPU_UNITS], end, bytes;
} watch;

static void seen(void *user, const tpu_event *e) {
  watch *w = user;
  cr_assert(e->start <= e->end && e->end <= e->done && e->issued <= e->start);
  cr_assert(e->start >= w->start[e->core][e->unit], "an event out of order");
  w->start[e->core][e->unit] = e->start;
  if (e->done > w->end) w->end = e->done;
  w->bytes += e->bytes;
}

Test(tpu_time, properties_of_any_program) {
  int conflicts = 0;
  for (uint64_t seed = 1; seed <= 160; seed++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tpu_random r = {seed};
    tpu_machine m = random_machine(ctx, &r);
    int cores = seed % 4 ? 1 : 2;
    int64_t dram_read, total = 0;
    tpu_program *p = random_program(ctx, &r, &m, cores, false, &dram_read);
    tpu_result v, again;
    watch w = {0};
    tpu_sim_options all = {.event = seen, .user = &w}, times = {.no_values = true};
    cr_assert_eq(simulate(ctx, &m, p, &all, &v), TN_OK, "seed %llu: %s", (unsigned long long)seed, tn_error(ctx));
    cr_assert(w.end <= v.cycles);
    cr_assert_eq(v.all.dram_read, dram_read);
    cr_assert_geq(w.bytes, v.all.dram_read + v.all.dram_written);
    sound(&v.all.cycles);
    cr_assert_eq(v.all.cycles.total, v.cycles);
    for (int t = 0; t < v.ntags; t++) {
      sound(&v.tags[t].counts.cycles);
      total += v.tags[t].counts.cycles.total;
    }
    cr_assert_eq(total, v.cycles, "tags sum up to %lld of %lld", (long long)total, (long long)v.cycles);
    int64_t macs = 0;
    for (int c = 0; c < cores; c++) macs += v.core[c].macs;
    cr_assert_eq(macs, v.all.macs);
    cr_assert_eq(simulate(ctx, &m, p, &times, &again), TN_OK);
    cr_assert_eq(again.cycles, v.cycles); /* values change no time */
    if (cores == 1) { /* a faster memory is never slower */
      int64_t before = v.cycles;
      for (double faster = 1.1; faster < 40; faster *= tpu_between(&r, 0, 1) ? 1.07 : 1.9) {
        tpu_machine f = m;
        f.dram_gbps *= faster;
        cr_assert_eq(simulate(ctx, &f, p, &times, &again), TN_OK);
        cr_assert_leq(again.cycles, before, "seed %llu: %g times the bandwidth takes longer", (unsigned long long)seed, faster);
        before = again.cycles;
      }
    }
    tpu_random q = {seed};
    random_machine(ctx, &q);
    tn_status s = simulate(ctx, &m, random_program(ctx, &q, &m, cores, true, &dram_read), &(tpu_sim_options){0}, &v);
    if (s == TN_EINPUT && strstr(tn_error(ctx), "in no order with instruction")) conflicts++;
    else cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
  cr_assert_gt(conflicts, 40, "of careless programs only %d were caught", conflicts);
}

/* ================================================================ several cores ==== */

static tpu_program *streams(tn_ctx *ctx, const tpu_machine *m, int cores, int n) {
  tpu_program *p = tpu_program_new(ctx, m->name, cores);
  p->dram_bytes = 1 << 20;
  tpu_program_segment(ctx, p, (tpu_segment){.name = "s", .kind = TPU_SEG_STATE, .bytes = 1 << 20});
  for (int c = 0; c < cores; c++) {
    for (int k = 0; k < n; k++) tpu_emit(ctx, p, c, box(TPU_LOAD, ub(TN_I8, 0, 4096), dram(TN_I8, c * 65536, 4096), 16, 4096));
    tpu_emit(ctx, p, c, tpu_inst_of(TPU_BARRIER));
  }
  return p;
}

Test(tpu_time, cores_share_the_memory) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tpu_machine m = *tpu_machine_find(ctx, "tpu-v4");
  m.launch_cycles = m.join_cycles = 0;
  tpu_result one, two;
  cr_assert_eq(simulate(ctx, &m, streams(ctx, &m, 1, 50), NULL, &one), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(simulate(ctx, &m, streams(ctx, &m, 2, 50), NULL, &two), TN_OK, "%s", tn_error(ctx));
  double ratio = (double)(two.cycles - (int64_t)m.dram_latency) / (double)(one.cycles - (int64_t)m.dram_latency);
  cr_assert(ratio > 1.95 && ratio < 2.05, "%g", ratio);
  cr_assert_eq(two.core[0].cycles.total, two.core[1].cycles.total); /* the barrier */
  tpu_program *p = streams(ctx, &m, 2, 3);
  p->core[1].n--; /* without its barrier */
  cr_assert_eq(simulate(ctx, &m, p, NULL, &two), TN_EINPUT);
  cr_assert(strstr(tn_error(ctx), "barrier"), "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

/* ================================================================ faults ==== */

static void fault(const char *body, const char *wants) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const char *text = ir_format(ctx, "program machine \"tpu-v4-core\" dram 65536\nsegment state 0 \"s\" at 0 bytes 32768\ncore {\n%s}\n", body);
  tpu_result v;
  tn_status s = simulate(ctx, tpu_machine_find(ctx, "tpu-v4-core"), tpu_program_parse(ctx, text, "text"), NULL, &v);
  if (!wants) cr_assert_eq(s, TN_OK, "%s\n%s", tn_error(ctx), body);
  else cr_assert(s == TN_EINPUT && strstr(tn_error(ctx), wants), "%s\nfor %s", tn_error(ctx), body);
  tn_ctx_free(ctx);
}

/* Cycles of an addition over rows x n elements, `pitch` apart, a row of n broadcast over them. */
static int64_t addition(tn_ctx *ctx, const tpu_machine *m, int64_t rows, int64_t n, int64_t pitch) {
  tpu_program *p = tpu_program_new(ctx, m->name, 1);
  p->dram_bytes = 64;
  tpu_inst i = box(TPU_VECTOR, ub(TN_F32, 0, (int32_t)pitch), ub(TN_F32, 0, (int32_t)pitch), rows, n);
  i.fn = IX_ADD;
  i.b = ub(TN_F32, 16 << 20, 0);
  tpu_emit(ctx, p, 0, i);
  tpu_result v;
  cr_assert_eq(simulate(ctx, m, p, &(tpu_sim_options){.no_values = true}, &v), TN_OK, "%s", tn_error(ctx));
  return v.all.busy[TPU_UNIT_VECTOR];
}

/* 2048 lanes take tiles of 8 x 128: two of them a cycle, whole ones, and rows that start elsewhere are turned into place. */
Test(tpu_time, tiles_of_the_vector_unit) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tpu_machine m = *tpu_machine_find(ctx, "tpu-v4-core");
  cr_assert_eq(addition(ctx, &m, 800, 128, 128), 50);
  cr_assert_eq(addition(ctx, &m, 800, 100, 128), 50);
  cr_assert_eq(addition(ctx, &m, 801, 129, 256), 101);
  cr_assert_eq(addition(ctx, &m, 800, 100, 100), 100);
  cr_assert_eq(addition(ctx, &m, 1, 80000, 0), 40); /* a run */
  m.tile_rows = m.tile_cols = 0;
  cr_assert_eq(addition(ctx, &m, 800, 100, 100), 40);
  m.tile_rows = 8;
  cr_assert_not_null(tpu_machine_check(ctx, &m));
  m.tile_cols = 100;
  cr_assert_not_null(tpu_machine_check(ctx, &m));
  tn_ctx_free(ctx);
}

Test(tpu_time, faults_are_reported) {
  fault("load dst=ub:f32@0[0,0,0,1] src=dram:f32@0[0,0,0,1] n=[1,1,1,64]\nsync unit=vector after=[load 1]\n", NULL);
  fault("sync unit=vector wait=[3]\n", "core 0, instruction 1: deadlock: the program has ended, yet; vector: instruction 0 (sync) waits for semaphore 3");
  fault("sync unit=load wait=[1] signal=[2]\nsync unit=store wait=[2] signal=[1]\nfence\n", "instruction 2: deadlock: a fence that is never reached; load: instruction 0");
  fault("nop wait=[9]\n", "deadlock: the sequencer waits");
  fault("sync unit=load signal=[1]\nsync unit=store signal=[1]\n", "semaphore 1 has two units that signal it");
  fault("matmul dst=acc:f32@0 src=ub:f32@0 k=[0,1] swap\n", "waits for a weight tile");
  fault("weights src=dram:f32@0\n", "1 weight tiles were never used");
  fault("v fn=neg dst=ub:f32@64[0,0,0,1] a=ub:f32@0[0,0,0,1] n=[1,1,1,4]\n", "instruction 0 (v): reads ub byte 0, which was never written");
  fault("store dst=dram:f32@0 src=ub:f32@128\n", "instruction 0 (store): reads ub byte 128, which was never written");
  fault("load dst=ub:f32@0 src=dram:f32@32768\n", "reads dram byte 32768, which was never written");
  fault("load dst=ub:f32@0[0,0,0,1] src=dram:f32@65532[0,0,0,1] n=[1,1,1,2]\n", "dram byte 65539 is outside (65536 bytes)");
  fault("load dst=ub:f32@2 src=dram:f32@0\n", "ub byte 2 is no multiple of 4");
  fault("load dst=ub:f32@0 src=dram:f32@0\nv fn=neg dst=ub:f32@4 a=ub:f32@0\n",
        "instruction 1 (v): reads ub bytes 0 to 3 in no order with instruction 0 of load, which writes them");
  fault("load dst=ub:f32@0 src=dram:f32@0\nfence\nv fn=neg dst=ub:f32@4 a=ub:f32@0\n", NULL);
  fault("load dst=ub:f32@0 src=dram:f32@0 signal=[1]\nv fn=neg dst=ub:f32@4 a=ub:f32@0 wait=[1]\n", NULL);
  /* ordered by way of a third unit */
  fault("load dst=ub:f32@0 src=dram:f32@0\nsync unit=store after=[load 1]\nv fn=neg dst=ub:f32@4 a=ub:f32@0 after=[store 1]\n", NULL);
  /* neighbours in rows that interleave do not conflict; the same bytes do */
  fault("load dst=ub:f32@0[0,0,2,1] src=dram:f32@0 n=[1,1,8,1]\nv fn=neg dst=ub:f32@4[0,0,2,1] a=imm:f32@1.0 n=[1,1,8,1]\n", NULL);
  fault("load dst=ub:f32@0[0,0,2,1] src=dram:f32@0 n=[1,1,8,1]\nv fn=neg dst=ub:f32@24[0,0,2,1] a=imm:f32@1.0 n=[1,1,8,1]\n", "writes ub bytes 24 to");
  fault("weights src=dram:f32@0 n=[1,1,2,1]\nmatmul dst=acc:f32@0 src=ub:f32@0 kernel=[1,1,1] k=[0,1] swap\n", "the resident tile is 2 x 1");
  fault("matmul dst=acc:f32@0 src=ub:f32@0 k=[0,1]\n", "there is no tile");
  fault("config r=1 imm=100000000\nload dst=ub+r1:f32@0 src=dram:f32@0\n", "ub byte 100000003 is outside");
}

Test(tpu_time, endless_programs_stop) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tpu_program *p = tpu_program_parse(ctx, "program machine \"tpu-v4\" dram 0\ncore {\nnop\njump span=-1\n}\n", "text");
  tpu_result v;
  cr_assert_eq(simulate(ctx, tpu_machine_find(ctx, "tpu-v4"), p, &(tpu_sim_options){.max_instructions = 10000}, &v), TN_ERESOURCE);
  cr_assert(strstr(tn_error(ctx), "gives up after 10000 instructions"));
  tn_ctx_free(ctx);
}

/* Loops, registers, reads and jumps: out[k] = sum of the first x[k] numbers, x in memory. */
Test(tpu_time, control_flow) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tpu_program *p = tpu_program_parse(ctx,
      "program machine \"tpu-v4-core\" dram 256\n"
      "segment input 0 \"x\" at 0 bytes 32 i64[4]\nsegment output 0 \"y\" at 64 bytes 32 i64[4]\n"
      "core {\n"
      "load dst=ub:i64@0[0,0,0,1] src=dram:i64@0[0,0,0,1] n=[1,1,1,4]\n"
      "v fn=cast dst=ub:i64@64[0,0,0,1] a=imm:i64@0 n=[1,1,1,4]\n"
      "fence\n"
      "repeat imm=4 span=9\n"
      "  read r=2 src=ub+r1:i64@0\n"
      "  repeat s=2 span=2\n"
      "    v fn=add dst=ub+r1:i64@64 a=ub+r1:i64@64 b=iota+r2:i64@0\n"
      "    step r=2 imm=-1\n"
      "  read r=3 src=ub+r1:i64@64 after=[vector 1]\n"
      "  jump s=3 span=2\n" /* a sum of 0 is left, others become negative */
      "  v fn=neg dst=ub+r1:i64@64 a=ub+r1:i64@64\n"
      "  nop\n"
      "  step r=1 imm=8\n"
      "store dst=dram:i64@64[0,0,0,1] src=ub:i64@64[0,0,0,1] n=[1,1,1,4] after=[vector 1]\n"
      "}\n", "text");
  int64_t x[4] = {3, 0, 1, 100}, y[4];
  const void *in[] = {x};
  void *out[] = {y};
  job j = {tpu_machine_find(ctx, "tpu-v4-core"), p, NULL, in, out, {0}};
  cr_assert_eq(ir_protect(ctx, run_job, &j), TN_OK, "%s", tn_error(ctx));
  int64_t want[4] = {-6, 0, -1, -5050};
  cr_assert_arr_eq(y, want, sizeof y);
  cr_assert_gt(j.result.cycles, 0);
  tn_ctx_free(ctx);
}

/* ================================================================ TPU v1 ==== */

/* Fully connected layers as the paper's MLPs and LSTMs run them: weights stream through the FIFO, products of all
 * rows of the batch, activation back into the buffer; two buffers of activations take turns. */
static tpu_result layers(tn_ctx *ctx, const tpu_machine *m, int64_t batch, int n, int64_t K, int64_t N, int vector_ops, int rounds) {
  tpu_program *p = tpu_program_new(ctx, m->name, 1);
  p->dram_bytes = up(K * N * n, 64) * 64 + (1 << 20);
  int64_t R = m->rows, C = m->cols, pitch = up(K > N ? K : N, C) * C, area = batch * pitch, banks = m->acc_bytes / (batch * C * 4);
  for (int round = 0; round < rounds; round++) {
    tpu_inst input = box(TPU_HOST, ub(TN_I8, 0, (int32_t)pitch), dram(TN_I8, K * N * n, (int32_t)K), batch, K);
    input.after[TPU_UNIT_VECTOR] = round != 0; /* the last layer has read the buffer */
    input.after[TPU_UNIT_MATRIX] = round != 0;
    tpu_emit(ctx, p, 0, input);
    int64_t bank = 0;
    for (int l = 0; l < n; l++) {
      int64_t from = l % 2 * area, to = (l + 1) % 2 * area, kt = up(K, R), nt = up(N, C);
      for (int64_t j = 0; j < nt; j++, bank++) {
        tpu_operand sums = acc(TN_I32, bank % banks * batch * C * 4, (int32_t)C);
        for (int64_t k = 0; k < kt; k++) {
          int64_t kk = least(R, K - k * R), nn = least(C, N - j * C);
          tpu_emit(ctx, p, 0, tile(dram(TN_I8, l * K * N + k * R * N + j * C, (int32_t)N), kk, nn));
          tpu_inst i = product(sums, ub(TN_I8, from + k * R, (int32_t)pitch), batch, nn, kk, TPU_SWAP | (k ? TPU_ACCUMULATE : 0));
          if (l == 0 && j == 0 && k == 0) i.after[TPU_UNIT_HOST] = 1;
          if (l && j == 0) i.after[TPU_UNIT_VECTOR] = (uint16_t)least(TPU_COUNT_MAX, k < nt ? (nt - k - 1) * (1 + vector_ops) + 1 : 1);
          if (bank >= banks && k == 0) i.after[TPU_UNIT_VECTOR] = (uint16_t)((banks - 1) * (1 + vector_ops) + 1);
          tpu_emit(ctx, p, 0, i);
        }
        tpu_inst relu = box(TPU_ACT, ub(TN_I8, to + j * C, (int32_t)pitch), sums, batch, least(C, N - j * C));
        relu.chain[0] = (tpu_step_fn){IX_CAST, 0, TN_F32, 0};
        relu.chain[1] = (tpu_step_fn){IX_MUL, TPU_ARG_IMM0, TN_F32, 0};
        relu.chain[2] = (tpu_step_fn){IX_MAX, TPU_ARG_IMM1 | TPU_CHAIN_SWAP, TN_F32, 0};
        relu.chain[3] = (tpu_step_fn){IX_CAST, 0, TN_I8, 0};
        relu.after[TPU_UNIT_MATRIX] = 1;
        tpu_emit(ctx, p, 0, relu);
        for (int v = 0; v < vector_ops; v++) { /* gates of an LSTM */
          tpu_inst i = box(TPU_VECTOR, ub(TN_I8, to + j * C, (int32_t)pitch), ub(TN_I8, to + j * C, (int32_t)pitch), batch, least(C, N - j * C));
          i.fn = IX_MUL;
          i.b = i.src;
          tpu_emit(ctx, p, 0, i);
        }
      }
    }
  }
  tpu_result v;
  cr_assert_eq(simulate(ctx, m, p, &(tpu_sim_options){.no_values = true}, &v), TN_OK, "%s", tn_error(ctx));
  return v;
}

static double tile_period(const tpu_result *v) {
  const tpu_cycles *c = &v->all.cycles;
  return (double)(c->active + c->weight_shift + c->weight_stall) / (double)v->all.tiles;
}

/* Jouppi et al., ISCA 2017, tables 1 and 3: layers, weights, batch; periods are 256 cycles of shift over its share. */
Test(tpu_time, table_3_of_tpu_v1) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const tpu_machine *m = tpu_machine_find(ctx, "tpu-v1");
  static const struct { const char *name; int64_t batch; int n; int64_t K, N; int vector; double period; } apps[] = {
      {"MLP0", 200, 5, 2000, 2000, 0, 1328},   /* 5 layers, 20 M weights */
      {"MLP1", 168, 4, 1118, 1118, 0, 1303},   /* 4 layers, 5 M */
      {"LSTM0", 64, 24, 1472, 1472, 2, 1330},  /* 24 matrix layers, 52 M */
      {"LSTM1", 96, 37, 600, 1532, 1, 1343},   /* 37 matrix layers, 34 M */
  };
  for (int k = 0; k < IR_COUNT(apps); k++) {
    tpu_result v = layers(ctx, m, apps[k].batch, apps[k].n, apps[k].K, apps[k].N, apps[k].vector, 2);
    double period = tile_period(&v);
    cr_log_info("%s: period %.1f (paper %.0f), active %.1f shift %.1f stall %.1f non-matrix %.1f %%", apps[k].name, period, apps[k].period,
                100.0 * (double)v.all.cycles.active / (double)v.cycles, 100.0 * (double)v.all.cycles.weight_shift / (double)v.cycles,
                100.0 * (double)v.all.cycles.weight_stall / (double)v.cycles, 100.0 * (double)v.all.cycles.non_matrix / (double)v.cycles);
    cr_assert(fabs(period / apps[k].period - 1) < 0.04, "%s: %g", apps[k].name, period);
    if (k == 0) {
      const tpu_cycles *c = &v.all.cycles;
      double sum = (double)(c->active + c->weight_shift + c->weight_stall), paper = 1 + 1.25 + 4.24;
      cr_assert(fabs((double)c->active / sum - 1 / paper) < 0.03);
      cr_assert(fabs((double)c->weight_shift / sum - 1.25 / paper) < 0.03);
      cr_assert(fabs((double)c->weight_stall / sum - 4.24 / paper) < 0.03);
    }
  }
  tpu_machine big = *m;
  big.rows = big.cols = 512;
  tpu_result small = layers(ctx, m, 96, 4, 600, 600, 0, 2), large = layers(ctx, &big, 96, 4, 600, 600, 0, 2);
  cr_assert_gt(large.cycles, small.cycles);
  tn_ctx_free(ctx);
}
