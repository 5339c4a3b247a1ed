/* tpu_machine.h — what a systolic machine is: one row per property, as text or as a preset.
 *
 * Text: a property a line, "#" starts a comment; unsaid ones are those of the machine named by
 * `like` (which must come first), else the default in tpu_machine.c's table:
 *
 *   like tpu-v4-core
 *   name my-machine
 *   rows 128
 *   dram_gbps 1200
 *
 * Cycles of the clock are the unit of time everywhere. Sources of the presets stand beside them.
 */
#ifndef CG_TPU_MACHINE_H
#define CG_TPU_MACHINE_H
#include "ir/ctx.h"

typedef enum tpu_dataflow { TPU_WS, TPU_OS, TPU_IS } tpu_dataflow;
extern const char *const tpu_dataflow_names[3]; /* "ws", "os", "is" */

typedef struct tpu_machine {
  const char *name;
  /* array: `arrays` of rows x cols stand side by side and share the rows of A, so the resident tile is
   * rows x (cols * arrays) */
  int64_t rows, cols, arrays;
  int64_t dataflow;            /* tpu_dataflow */
  int64_t cores;
  double clock_mhz;
  double int8, bf16, f16, f32; /* cycles a row of A takes in the array; 0: not supported */
  int64_t shift_rows;          /* rows of a tile shifted into the shadow registers per cycle */
  int64_t fifo_depth;          /* tiles */
  int64_t pad_tiles;           /* 1: the weight memory holds whole rows x cols tiles, so all of it is read */
  int64_t matmul_overhead;     /* cycles of the array lost per instruction */
  int64_t window_depth;        /* a product of no larger K is one window of its operands: nothing comes in beside it... */
  double window_cycles;        /* ...so that a row takes so much longer */
  /* memory */
  int64_t ub_bytes, acc_bytes; /* per core */
  int64_t channels;            /* DRAM channels, 1..3: 1 all traffic; 2 reads | writes; 3 loads | stores | weights */
  double dram_gbps;            /* all channels together, all cores, 1e9 bytes per second */
  int64_t near_bytes;          /* a program whose whole image is not larger finds it in a memory beside the DRAM... */
  double near_gbps;            /* ...of this bandwidth, in place of dram_gbps */
  double dram_share[3];        /* relative weights: channel c has share[c] / (sum over channels) of it */
  double dram_latency;         /* cycles from the last byte leaving to its being usable */
  int64_t dram_burst;          /* bytes: each contiguous piece counts as whole bursts */
  double host_gbps;            /* link to the host, shared by the cores; 0: `host` uses the load channel */
  double host_latency;
  /* vector and activation unit: elements per cycle = lanes / cost */
  int64_t lanes;               /* of 32 bits; narrower elements count the same */
  int64_t tile_rows, tile_cols; /* it takes tiles of so many elements of the two last axes, whole ones, rows at multiples of tile_cols; 0: any run */
  double vector_overhead;      /* cycles per instruction */
  double cost_simple, cost_div, cost_transcendental, cost_gather, cost_strided; /* cycles per `lanes` elements */
  int64_t act_lanes;           /* elements per cycle of act and pool */
  /* sequencer */
  int64_t issue_cycles, queue_depth;
  double launch_cycles;        /* once per program: before the first instruction */
  double join_cycles;          /* besides, when several cores take part */
  /* energy, picojoules */
  double pj_mac_int8, pj_mac_bf16, pj_mac_f32, pj_ub_byte, pj_acc_byte, pj_dram_byte, pj_vector_op, pj_shift_byte;
  double static_watts;         /* per core */
} tpu_machine;

/* A preset: tpu-v1, tpu-v4, tpu-v4-core, tpu-v6e, scalesim-{os,ws,is}-RxC; or a file of the text
 * above when `name` has a '/' or ends in ".machine". Throws TN_EUSAGE (unknown name, listing
 * those there are) or TN_EINPUT (file:line:column). */
const tpu_machine *tpu_machine_find(tn_ctx *ctx, const char *name);
tpu_machine *tpu_machine_parse(tn_ctx *ctx, const char *text, const char *file);
const char *tpu_machine_print(tn_ctx *ctx, const tpu_machine *m); /* every property; reads back */
/* Null, or why it is no machine. */
const char *tpu_machine_check(tn_ctx *ctx, const tpu_machine *m);
extern const char *const tpu_machine_names[]; /* of the presets, null-terminated */
/* Sets one property by its name in the text; false: there is none of that name. For sweeps. */
bool tpu_machine_set(tpu_machine *m, const char *property, double value);

/* Cycles that the array takes for a row of A of a dtype; 0: it cannot multiply it. */
static inline double tpu_row_cycles(const tpu_machine *m, tn_dtype t) {
  return t == TN_I8 || t == TN_U8 ? m->int8 : t == TN_BF16 ? m->bf16 : t == TN_F16 ? m->f16 : t == TN_F32 ? m->f32 : 0;
}
static inline int64_t tpu_tile_cols(const tpu_machine *m) { return m->cols * m->arrays; }
/* Bytes of DRAM traffic per cycle, all channels. */
static inline double tpu_dram_bytes_per_cycle(const tpu_machine *m) { return m->dram_gbps * 1e3 / m->clock_mhz; }
/* The same of a program with an image of so many bytes. */
static inline double tpu_image_bytes_per_cycle(const tpu_machine *m, int64_t image) {
  return (image <= m->near_bytes ? m->near_gbps : m->dram_gbps) * 1e3 / m->clock_mhz;
}
/* Multiply-adds per second of all cores at the given cycles per row. */
static inline double tpu_peak_macs(const tpu_machine *m, double row_cycles) {
  return (double)(m->rows * m->cols * m->arrays * m->cores) * m->clock_mhz * 1e6 / row_cycles;
}
#endif
