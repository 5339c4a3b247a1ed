/* Layers by SCALE-Sim's rules: instructions through the event engine give what SCALE-Sim reported for
 * layers that it executed, its closed form holds beside it, the values are those of the product, and
 * an instruction more or less changes the count. TENON_SCALESIM_CSV names a whole table to check. */
#include "codegen/tpu_folds.h"
#include "runtime/tpu_sim.h"
#include "tests/reader_help.h"

/* ---- the closed form, for comparison only ---- */

typedef struct report {
  int64_t cycles, ifmap, filter, ofmap;
  double utilization;
} report;

static int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Samajdar et al., ISPASS 2020, and what SCALE-Sim 3 makes of it. */
static report closed_form(tpu_dataflow d, int64_t R, int64_t C, int64_t M, int64_t N, int64_t K, bool faults) {
  int64_t Sr = d == TPU_OS ? M : K, Sc = d == TPU_IS ? M : N, T = d == TPU_OS ? K : d == TPU_WS ? M : N;
  int64_t Fr = over(Sr, R), Fc = over(Sc, C);
  report r = {.cycles = Fr * Fc * ((d == TPU_OS ? 0 : R) + R + C + T - 2) - faults};
  r.utilization = 100 * (double)(M * N * K) / ((double)r.cycles * (double)(R * C));
  r.ifmap = d == TPU_IS ? M * K : M * K * Fc;
  r.filter = d == TPU_OS ? K * N * Fr : d == TPU_WS ? K * N : K * N * Fc;
  r.ofmap = d == TPU_OS ? M * N + (faults ? Fr * Fc * (R + C) : 0) : M * N * Fr;
  return r;
}

/* ---- the engine ---- */

static const tpu_machine *machine(tn_ctx *ctx, tpu_dataflow d, int64_t R, int64_t C) {
  return tpu_machine_find(ctx, ir_format(ctx, "scalesim-%s-%lldx%lld", tpu_dataflow_names[d], (long long)R, (long long)C));
}

static report reported(const tpu_machine *m, const tpu_tag_result *t, int64_t macs) {
  report r = {t->reported, t->counts.sram_ifmap_reads, t->counts.sram_filter_reads, t->counts.sram_ofmap_writes, 0};
  r.utilization = 100 * (double)macs / ((double)r.cycles * (double)(m->rows * m->cols));
  return r;
}

static report simulated(tn_ctx *ctx, tpu_dataflow d, int64_t R, int64_t C, int64_t M, int64_t N, int64_t K, bool faults) {
  const tpu_machine *m = machine(ctx, d, R, C);
  const tpu_program *p = tpu_folds(ctx, m, 1, &(tpu_product){"x", M, N, K, 1});
  tpu_sim_options o = {.timing = TPU_TIMING_SCALESIM, .no_values = true, .faults = faults};
  const tpu_result *r = tpu_simulate(ctx, m, p, &o, NULL, NULL, NULL);
  cr_assert_eq(r->tags[1].counts.macs, M * N * K);
  return reported(m, &r->tags[1], M * N * K);
}

static void same(const char *what, const report *got, const report *want) {
  cr_assert(got->cycles == want->cycles, "%s: %lld cycles, should be %lld", what, (long long)got->cycles, (long long)want->cycles);
  cr_assert(got->ifmap == want->ifmap && got->filter == want->filter && got->ofmap == want->ofmap, "%s: accesses %lld %lld %lld, should be %lld %lld %lld", what,
            (long long)got->ifmap, (long long)got->filter, (long long)got->ofmap, (long long)want->ifmap, (long long)want->filter, (long long)want->ofmap);
  double e = got->utilization / want->utilization - 1;
  cr_assert(e < 1e-9 && e > -1e-9, "%s: utilization %.12g, should be %.12g", what, got->utilization, want->utilization);
}

/* ---- what SCALE-Sim reported ---- */

static void executed(tn_ctx *ctx, void *arg) {
#define ROW(df, r, c, topology, layer, m, n, k, total, util, reads, weights, writes, how)                           \
  {                                                                                                                 \
    report got = simulated(ctx, TPU_##df, r, c, m, n, k, true), want = {total, reads, weights, writes, util};        \
    same(topology " " layer " " #df " " #r "x" #c, &got, &want);                                                    \
    got = simulated(ctx, TPU_##df, r, c, m, n, k, false);                                                           \
    cr_assert_eq(got.cycles, total + 1);                                                                            \
  }
#include "tests/scalesim_rows.h"
#undef ROW
}
Test(scalesim, executed) { expect_status(executed, NULL, TN_OK, NULL); }

static tpu_dataflow dataflow(const char *s) {
  int d = 0;
  while (d < 3 && strcmp(s, tpu_dataflow_names[d])) d++;
  cr_assert(d < 3, "dataflow '%s'", s);
  return (tpu_dataflow)d;
}

static void whole_table(tn_ctx *ctx, void *arg) {
  FILE *f = fopen(arg, "r");
  cr_assert(f, "%s", (char *)arg);
  char line[1024], df[8], name[256], topology[256];
  int rows = 0;
  cr_assert(fgets(line, sizeof line, f));
  while (fgets(line, sizeof line, f)) {
    long R, C, M, N, K, cycles, ifmap, filter, ofmap;
    double util;
    int n = sscanf(line, "%*[^,],%7[^,],%ld,%ld,%255[^,],%*d,%255[^,],%ld,%ld,%ld,%ld,%lf,%ld,%ld,%ld", df, &R, &C, topology, name, &M, &N, &K, &cycles, &util, &ifmap,
                   &filter, &ofmap);
    cr_assert_eq(n, 13, "row %d: %s", rows + 2, line);
    report got = simulated(ctx, dataflow(df), R, C, M, N, K, true), want = {cycles, ifmap, filter, ofmap, util};
    char what[640];
    snprintf(what, sizeof what, "%s %s %s %ldx%ld", topology, name, df, R, C);
    same(what, &got, &want);
    rows++;
  }
  fclose(f);
  fprintf(stderr, "%s: %d rows, all exact\n", (char *)arg, rows);
}
Test(scalesim, whole_table) {
  char *path = getenv("TENON_SCALESIM_CSV");
  if (path) expect_status(whole_table, path, TN_OK, NULL);
}

/* ---- any array, any size ---- */

static uint64_t state;
static int64_t draw(int64_t most) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return 1 + (int64_t)((state >> 33) % (uint64_t)most);
}

static void any_size(tn_ctx *ctx, void *arg) {
  state = 6;
  for (int i = 0; i < 600; i++) {
    tpu_dataflow d = (tpu_dataflow)(i % 3);
    int64_t R = draw(i % 5 ? 40 : 300), C = draw(i % 7 ? 40 : 300), M = draw(i % 4 ? 200 : 5), N = draw(i % 6 ? 200 : 3), K = draw(300);
    bool faults = i % 2;
    report got = simulated(ctx, d, R, C, M, N, K, faults), want = closed_form(d, R, C, M, N, K, faults);
    same(ir_format(ctx, "%s %ldx%ld on %ldx%ldx%ld", tpu_dataflow_names[d], (long)R, (long)C, (long)M, (long)N, (long)K), &got, &want);
  }
}
Test(scalesim, any_size) { expect_status(any_size, NULL, TN_OK, NULL); }

/* Loops of folds are repeats: billions of them take no longer. */
static void many_folds(tn_ctx *ctx, void *arg) {
  for (tpu_dataflow d = 0; d < 3; d++) {
    report got = simulated(ctx, d, 4, 4, 300001, 200003, 100003, true), want = closed_form(d, 4, 4, 300001, 200003, 100003, true);
    same(tpu_dataflow_names[d], &got, &want);
  }
}
Test(scalesim, many_folds) { expect_status(many_folds, NULL, TN_OK, NULL); }

static void network(tn_ctx *ctx, void *arg) {
  const tpu_product layers[] = {{"a", 100, 20, 30, 1}, {"b", 7, 65, 33, 3}, {"c", 1, 1, 1, 1}};
  const tpu_machine *m = machine(ctx, TPU_WS, 16, 8);
  const tpu_program *p = tpu_folds(ctx, m, 3, layers);
  const tpu_result *r = tpu_simulate(ctx, m, p, &(tpu_sim_options){.timing = TPU_TIMING_SCALESIM, .no_values = true}, NULL, NULL, NULL);
  int64_t sum = 0;
  for (int i = 0; i < 3; i++) {
    int64_t want = layers[i].groups * closed_form(TPU_WS, 16, 8, layers[i].M, layers[i].N, layers[i].K, false).cycles;
    cr_assert_eq(r->tags[i + 1].counts.cycles.total, want);
    sum += want;
  }
  cr_assert_eq(r->cycles, sum);
}
Test(scalesim, network) { expect_status(network, NULL, TN_OK, NULL); }

/* ---- the programs compute the products ---- */

static void values(tn_ctx *ctx, void *arg) {
  state = 11;
  for (int i = 0; i < 90; i++) {
    tpu_dataflow d = (tpu_dataflow)(i % 3);
    tpu_machine m = *machine(ctx, d, draw(9), draw(9));
    m.ub_bytes = m.acc_bytes = 1 << 20;
    tpu_product l = {"x", draw(20), draw(20), draw(30), draw(3)};
    int64_t M = l.M, N = l.N, K = l.K;
    int8_t *a = IR_NEW_ARRAY(ctx, int8_t, l.groups * M * K), *b = IR_NEW_ARRAY(ctx, int8_t, l.groups * K * N);
    int32_t *got = IR_NEW_ARRAY(ctx, int32_t, l.groups * M * N);
    for (int64_t k = 0; k < l.groups * M * K; k++) a[k] = (int8_t)draw(256);
    for (int64_t k = 0; k < l.groups * K * N; k++) b[k] = (int8_t)draw(256);
    const tpu_program *p = tpu_folds(ctx, &m, 1, &l);
    const char *wrong = tpu_program_check(ctx, &m, p);
    cr_assert(!wrong, "%s", wrong);
    const void *in[] = {a, b};
    void *out[] = {got};
    tpu_simulate(ctx, &m, p, &(tpu_sim_options){.timing = TPU_TIMING_SCALESIM}, in, out, NULL);
    for (int64_t g = 0; g < l.groups; g++)
      for (int64_t y = 0; y < M; y++)
        for (int64_t x = 0; x < N; x++) {
          int32_t want = 0;
          for (int64_t k = 0; k < K; k++) want += a[(g * M + y) * K + k] * b[(g * K + k) * N + x];
          cr_assert_eq(got[(g * M + y) * N + x], want, "%s, case %d: [%ld,%ld,%ld]", tpu_dataflow_names[d], i, (long)g, (long)y, (long)x);
        }
  }
}
Test(scalesim, values) { expect_status(values, NULL, TN_OK, NULL); }

/* ---- the count comes from the instructions ---- */

typedef struct variant {
  const tpu_machine *m;
  const tpu_program *p;
  int64_t cycles; /* -1: the simulator refused it */
} variant;

static void try_variant(tn_ctx *ctx, void *arg) {
  variant *v = arg;
  v->cycles = -1;
  const tpu_result *r = tpu_simulate(ctx, v->m, v->p, &(tpu_sim_options){.timing = TPU_TIMING_SCALESIM, .no_values = true, .max_instructions = 100000}, NULL, NULL, NULL);
  v->cycles = r->cycles;
}

/* The program without instruction `at` (how 0), or with it twice (1); repeats around it follow. */
static tpu_program *edited(tn_ctx *ctx, const tpu_program *p, int64_t at, int how) {
  tpu_program *q = IR_NEW(ctx, tpu_program);
  *q = *p;
  q->core[0] = (tpu_core_text){0, NULL};
  for (int64_t i = 0; i < p->core[0].n; i++) {
    tpu_inst x = p->core[0].insts[i];
    if (x.op == TPU_REPEAT && i < at && at <= i + x.span) x.span += how ? 1 : -1;
    for (int k = 0; k < (i == at ? 2 * how : 1); k++) tpu_emit(ctx, q, 0, x);
  }
  return q;
}

static void mutated(tn_ctx *ctx, void *arg) {
  int matmuls = 0, repeats = 0;
  for (tpu_dataflow d = 0; d < 3; d++) {
    const tpu_machine *m = machine(ctx, d, 8, 4);
    const tpu_program *p = tpu_folds(ctx, m, 1, &(tpu_product){"x", 50, 27, 43, 2});
    variant v = {m, p, 0};
    try_variant(ctx, &v);
    int64_t whole = v.cycles;
    cr_assert_eq(whole, 2 * closed_form(d, 8, 4, 50, 27, 43, false).cycles);
    for (int64_t i = 0; i < p->core[0].n; i++) {
      tpu_opcode op = p->core[0].insts[i].op;
      if (op != TPU_MATMUL && op != TPU_REPEAT) continue;
      matmuls += op == TPU_MATMUL, repeats += op == TPU_REPEAT;
      for (int how = 0; how < (op == TPU_MATMUL ? 2 : 1); how++) {
        v.p = edited(ctx, p, i, how);
        ir_protect(ctx, try_variant, &v);
        cr_assert_neq(v.cycles, whole, "%s: instruction %ld %s changes nothing", tpu_dataflow_names[d], (long)i, how ? "twice" : "left out");
      }
    }
  }
  cr_assert(matmuls >= 9 && repeats >= 6);
}
Test(scalesim, mutated) { expect_status(mutated, NULL, TN_OK, NULL); }
