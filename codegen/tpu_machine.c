/* tpu_machine.c — properties of a systolic machine, one row each; presets; text. */
#include "codegen/tpu_machine.h"
#include "frontend/file.h"
#include "ir/text.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const tpu_dataflow_names[3] = {"ws", "os", "is"};

/* ---- properties ---- */

typedef enum kind { INT, REAL, FLOW } kind;
typedef struct property {
  const char *name;
  kind kind;
  size_t offset;
  double otherwise, lo, hi; /* default; bounds, both included */
} property;

#define P(kind, member, otherwise, lo, hi) {#member, kind, offsetof(tpu_machine, member), otherwise, lo, hi}
#define BIG 0x1p60
static const property properties[] = {
    P(INT, rows, 128, 1, 1 << 16),
    P(INT, cols, 128, 1, 1 << 16),
    P(INT, arrays, 1, 1, 64),
    P(FLOW, dataflow, TPU_WS, TPU_WS, TPU_IS),
    P(INT, cores, 1, 1, 64),
    P(REAL, clock_mhz, 1000, 1e-3, 1e6),
    P(REAL, int8, 1, 0, 1e6),
    P(REAL, bf16, 1, 0, 1e6),
    P(REAL, f16, 1, 0, 1e6),
    P(REAL, f32, 1, 0, 1e6),
    P(INT, shift_rows, 1, 1, 1 << 16),
    P(INT, fifo_depth, 4, 1, 1 << 16),
    P(INT, pad_tiles, 0, 0, 1),
    P(INT, matmul_overhead, 0, 0, 1 << 20),
    P(INT, window_depth, 0, 0, 1 << 30),
    P(REAL, window_cycles, 0, 0, 1e6),
    P(INT, ub_bytes, 64 << 20, 64, BIG),
    P(INT, acc_bytes, 8 << 20, 64, BIG),
    P(INT, channels, 1, 1, 3),
    P(REAL, dram_gbps, 1000, 1e-6, 1e9),
    P(INT, near_bytes, 0, 0, BIG),
    P(REAL, near_gbps, 1000, 1e-6, 1e9),
    {"dram_share0", REAL, offsetof(tpu_machine, dram_share[0]), 1, 1e-3, 1},
    {"dram_share1", REAL, offsetof(tpu_machine, dram_share[1]), 1, 1e-3, 1},
    {"dram_share2", REAL, offsetof(tpu_machine, dram_share[2]), 1, 1e-3, 1},
    P(REAL, dram_latency, 0, 0, 1e9),
    P(INT, dram_burst, 64, 1, 1 << 20),
    P(REAL, host_gbps, 0, 0, 1e9),
    P(REAL, host_latency, 0, 0, 1e9),
    P(INT, lanes, 1024, 1, 1 << 20),
    P(INT, tile_rows, 0, 0, 1 << 10),
    P(INT, tile_cols, 0, 0, 1 << 16),
    P(REAL, vector_overhead, 0, 0, 1e9),
    P(REAL, cost_simple, 1, 0, 1e6),
    P(REAL, cost_div, 8, 0, 1e6),
    P(REAL, cost_transcendental, 16, 0, 1e6),
    P(REAL, cost_gather, 64, 0, 1e6),
    P(REAL, cost_strided, 2, 0, 1e6),
    P(INT, act_lanes, 1024, 1, 1 << 20),
    P(INT, issue_cycles, 1, 0, 1 << 20),
    P(INT, queue_depth, 64, 1, 1 << 16),
    P(REAL, launch_cycles, 0, 0, 1e9),
    P(REAL, join_cycles, 0, 0, 1e9),
    P(REAL, pj_mac_int8, 0.077, 0, 1e6),
    P(REAL, pj_mac_bf16, 0.59, 0, 1e6),
    P(REAL, pj_mac_f32, 1.69, 0, 1e6),
    P(REAL, pj_ub_byte, 1.75, 0, 1e6),
    P(REAL, pj_acc_byte, 1.06, 0, 1e6),
    P(REAL, pj_dram_byte, 44, 0, 1e6),
    P(REAL, pj_vector_op, 1.69, 0, 1e6),
    P(REAL, pj_shift_byte, 0.1, 0, 1e6),
    P(REAL, static_watts, 0, 0, 1e6),
};

static double get(const tpu_machine *m, const property *p) {
  const void *at = (const char *)m + p->offset;
  return p->kind == REAL ? *(const double *)at : (double)*(const int64_t *)at;
}

static void set(tpu_machine *m, const property *p, double v) {
  void *at = (char *)m + p->offset;
  if (p->kind == REAL) *(double *)at = v;
  else *(int64_t *)at = (int64_t)v;
}

static const property *find(const char *name) {
  for (int k = 0; k < IR_COUNT(properties); k++)
    if (strcmp(properties[k].name, name) == 0) return &properties[k];
  return NULL;
}

bool tpu_machine_set(tpu_machine *m, const char *name, double value) {
  const property *p = find(name);
  if (p) set(m, p, value);
  return p != NULL;
}

const char *tpu_machine_check(tn_ctx *ctx, const tpu_machine *m) {
  for (int k = 0; k < IR_COUNT(properties); k++) {
    const property *p = &properties[k];
    double v = get(m, p);
    if (!(v >= p->lo && v <= p->hi)) return ir_format(ctx, "%s is %g, not between %g and %g", p->name, v, p->lo, p->hi);
  }
  if (!m->int8 && !m->bf16 && !m->f16 && !m->f32) return "the array multiplies no dtype";
  int64_t tile = m->tile_rows * m->tile_cols;
  if (!tile != !(m->tile_rows + m->tile_cols)) return "tile_rows and tile_cols go together";
  if (tile && (m->lanes % tile || m->act_lanes % tile))
    return ir_format(ctx, "lanes and act_lanes are no multiples of %lld x %lld", (long long)m->tile_rows, (long long)m->tile_cols);
  return NULL;
}

/* ---- presets ----
 *
 * Energies of 7 nm and of 45 nm per operation and per access: Jouppi et al., "Ten lessons from three generations
 * shaped Google's TPUv4i", ISCA 2021, table 2 (after Horowitz, ISSCC 2014): int8 add 0.007 + multiply
 * 0.07, bf16 multiply 0.21 + f32 add 0.38, f32 1.31 + 0.38 pJ; 1 MB of SRAM 14 pJ and 32 KB 8.5 pJ per 8
 * bytes; HBM 250 to 450, DDR3 1300 pJ per 8 bytes. At 45 nm 0.03 + 0.2, 100, 20, 1300. */
typedef struct preset {
  const char *name, *text;
} preset;

static const preset presets[] = {
    /* Jouppi et al., "In-datacenter performance analysis of a tensor processing unit", ISCA 2017: 256 x 256 of
     * int8 at 700 MHz, 24 MiB unified buffer, 4096 accumulators of 256 x 32 bits, a FIFO of four tiles, DDR3 at 34
     * GB/s, PCIe at 14 GB/s (table 2), 16 bits at half and quarter speed. Its weight memory holds whole tiles of 64 KiB.
     * Its activation unit does a row of 256 a cycle. */
    {"tpu-v1",
     "rows 256\ncols 256\nclock_mhz 700\nint8 1\nbf16 0\nf16 0\nf32 0\nfifo_depth 4\npad_tiles 1\nub_bytes 25165824\n"
     "acc_bytes 4194304\ndram_gbps 34\ndram_latency 70\nhost_gbps 14\nhost_latency 700\nlanes 256\nact_lanes 256\n"
     "pj_mac_int8 0.23\npj_mac_bf16 1.5\npj_mac_f32 4.6\npj_ub_byte 12.5\npj_acc_byte 2.5\npj_dram_byte 162.5\n"
     "pj_vector_op 4.6\npj_shift_byte 1.25\nstatic_watts 28\n"},
    /* Jouppi et al., "TPU v4", ISCA 2023, and the paper of 2021: 4 arrays of 128 x 128 bf16 a core, two cores at
     * 1050 MHz, 16 MiB of VMEM a core and 128 MiB of CMEM, HBM2 at 1200 GB/s; a vector unit of 128 x 8 lanes,
     * two operations each a cycle. f32 in six passes of bf16.
     * Four constants are fitted to 156 measured f16 products of 1024 to 4096 (bench/tpu_v4_fit.py), a fifth, launch_cycles, is
     * the time of the smallest product. f16: the arrays take bf16, so rows are converted on their way in.
     * window_depth is what fits: strips of 512 rows and of 512 columns, twice, fill half of VMEM at K = 2048; no deeper product
     * has its next window fetched and converted beside it, which window_cycles of a row stand for. near_gbps: operands of such a product lie in
     * the CMEM (near_bytes). join_cycles: dividing a product among two cores and waiting for both. */
    {"tpu-v4",
     "rows 128\ncols 128\narrays 4\ncores 2\nclock_mhz 1050\nint8 1\nbf16 1\nf16 1.842\nf32 6\nub_bytes 83886080\n"
     "acc_bytes 8388608\nwindow_depth 2048\nwindow_cycles 0.2\ndram_gbps 1200\nnear_bytes 134217728\nnear_gbps 4580\ndram_latency 400\nlaunch_cycles 1000\njoin_cycles 21100\nlanes 2048\nact_lanes 2048\ntile_rows 8\ntile_cols 128\npj_dram_byte 44\nstatic_watts 27\n"},
    {"tpu-v4-core", "like tpu-v4\ncores 1\ndram_gbps 600\n"},
    /* Google Cloud, "TPU v6e": one core, 918 TFLOP/s of bf16 (4 arrays of 256 x 256 at 1750 MHz), twice that in int8,
     * HBM at 1640 GB/s; 128 MiB of VMEM; a vector unit of 128 x 8 lanes, four operations each a cycle. */
    {"tpu-v6e",
     "rows 256\ncols 256\narrays 4\nclock_mhz 1750\nint8 1\nbf16 1\nf16 1\nf32 6\nub_bytes 134217728\nacc_bytes 33554432\n"
     "dram_gbps 1640\ndram_latency 600\nlanes 4096\nact_lanes 4096\ntile_rows 8\ntile_cols 128\n"},
};
const char *const tpu_machine_names[] = {"tpu-v1", "tpu-v4", "tpu-v4-core", "tpu-v6e", "scalesim-os-RxC", "scalesim-ws-RxC",
                                         "scalesim-is-RxC", NULL};

static tpu_machine *defaults(tn_ctx *ctx, const char *name) {
  tpu_machine *m = IR_NEW(ctx, tpu_machine);
  for (int k = 0; k < IR_COUNT(properties); k++) set(m, &properties[k], properties[k].otherwise);
  m->name = ir_intern(ctx, name);
  return m;
}

/* "scalesim-os-32x32": SCALE-Sim's idea of a machine, for its timing. Null when the name has another form. */
static tpu_machine *scalesim(tn_ctx *ctx, const char *name) {
  char flow[3];
  int rows, cols, end = 0;
  if (sscanf(name, "scalesim-%2[a-z]-%5dx%5d%n", flow, &rows, &cols, &end) != 3 || name[end] || rows < 1 || cols < 1) return NULL;
  for (int k = 0; k < 3; k++) {
    if (strcmp(flow, tpu_dataflow_names[k]) != 0) continue;
    tpu_machine *m = defaults(ctx, name);
    m->rows = rows;
    m->cols = cols;
    m->dataflow = k;
    m->ub_bytes = m->acc_bytes = (int64_t)1 << 60; /* its memories never limit a layer */
    return m;
  }
  return NULL;
}

static tpu_machine *known(tn_ctx *ctx, const char *name) {
  for (int k = 0; k < IR_COUNT(presets); k++)
    if (strcmp(presets[k].name, name) == 0) {
      tpu_machine *m = tpu_machine_parse(ctx, presets[k].text, name);
      m->name = ir_intern(ctx, name);
      return m;
    }
  return scalesim(ctx, name);
}

const tpu_machine *tpu_machine_find(tn_ctx *ctx, const char *name) {
  size_t n = strlen(name);
  if (strchr(name, '/') || (n > 8 && strcmp(name + n - 8, ".machine") == 0)) {
    const fe_map *file = fe_map_file(ctx, name);
    return tpu_machine_parse(ctx, ir_strndup(ctx, file->data, file->size), name);
  }
  const tpu_machine *m = known(ctx, name);
  if (m) return m;
  ir_text t = {.ctx = ctx};
  for (const char *const *p = tpu_machine_names; *p; p++) ir_put(&t, "%s%s", p == tpu_machine_names ? "" : ", ", *p);
  ir_fail(ctx, TN_EUSAGE, "there is no machine '%s'; there are %s (R x C of any size), and files FOLDER/NAME or NAME.machine", name, ir_text_str(&t));
}

/* ---- text ---- */

static double read_value(ir_lexer *l, const property *p) {
  const char *at = l->at;
  if (p->kind == FLOW) {
    const char *word = ir_lex_name(l, "ws, os or is");
    for (int k = 0; k < 3; k++)
      if (strcmp(word, tpu_dataflow_names[k]) == 0) return k;
    ir_lex_fail_at(l, at, "dataflow is ws, os or is");
  }
  if (l->token != IR_T_NUMBER || l->number.suffix != TN_NONE) ir_lex_expected(l, "a number");
  double v = l->number.f;
  if (!(v >= p->lo && v <= p->hi)) ir_lex_fail(l, "%s is between %g and %g", p->name, p->lo, p->hi);
  if (p->kind == INT && v != floor(v)) ir_lex_fail(l, "%s is a whole number", p->name);
  ir_lex_next(l);
  return v;
}

/* A machine's name: "quoted", or as in tpu-v4: all up to a blank. */
static const char *read_name(ir_lexer *l) {
  if (l->token != IR_T_NAME) return ir_lex_string(l, "a machine's name");
  size_t n = strcspn(l->at, " \t\r\n#");
  const char *name = ir_intern(l->ctx, ir_strndup(l->ctx, l->at, n));
  l->p = l->at + n;
  ir_lex_next(l);
  return name;
}

static void read_line(ir_lexer *l, tpu_machine *m, bool *first) {
  const char *at = l->at, *word = ir_lex_name(l, "a property");
  if (strcmp(word, "name") == 0) m->name = read_name(l);
  else if (strcmp(word, "like") == 0) {
    if (!*first) ir_lex_fail_at(l, at, "'like' must come first");
    const char *where = l->at, *whose = read_name(l), *own = m->name;
    const tpu_machine *base = known(l->ctx, whose);
    if (!base) ir_lex_fail_at(l, where, "there is no machine '%s'", whose);
    *m = *base;
    m->name = own;
  } else {
    const property *p = find(word);
    if (!p) ir_lex_fail_at(l, at, "a machine has no '%s'", word);
    set(m, p, read_value(l, p));
  }
  *first = false;
  if (l->token != IR_T_LINE && l->token != IR_T_END) ir_lex_expected(l, "the end of the line");
}

static void read_machine(ir_lexer *l, void *arg) {
  tpu_machine *m = arg;
  bool first = true;
  while (l->token != IR_T_END) {
    if (l->token == IR_T_LINE) ir_lex_next(l);
    else read_line(l, m, &first);
  }
  const char *why = tpu_machine_check(l->ctx, m);
  if (why) ir_lex_fail(l, "%s", why);
}

tpu_machine *tpu_machine_parse(tn_ctx *ctx, const char *text, const char *file) {
  tpu_machine *m = defaults(ctx, file);
  ir_lexer l;
  ir_lex_start(&l, ctx, text, file, true);
  ir_lex_run(&l, read_machine, m);
  return m;
}

const char *tpu_machine_print(tn_ctx *ctx, const tpu_machine *m) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "name ");
  ir_put_string(&t, m->name);
  ir_put(&t, "\n");
  for (int k = 0; k < IR_COUNT(properties); k++) {
    const property *p = &properties[k];
    double v = get(m, p);
    ir_put(&t, "%s ", p->name);
    if (p->kind == FLOW) ir_put(&t, "%s", tpu_dataflow_names[(int)v]);
    else if (p->kind == INT) ir_put(&t, "%lld", (long long)v);
    else ir_put_float(&t, TN_F64, v);
    ir_put(&t, "\n");
  }
  return ir_text_str(&t);
}
