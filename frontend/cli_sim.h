/* cli_sim.h — what tenon simulate gathers and shows.
 *
 *   layers or a model ── programs ── simulator ──┬─ rows      table, CSV, JSON, roofline
 *                                                └─ recorder  timeline of the page, Chrome trace
 */
#ifndef FE_CLI_SIM_H
#define FE_CLI_SIM_H
#include "frontend/cli.h"
#include "frontend/topology.h"
#include "runtime/tpu_sim.h"

/* ---- rows: a layer each, in order ---- */

typedef struct sim_row {
  const char *name;
  int64_t M, N, K;      /* 0: no matrix product */
  int64_t macs;         /* multiply-adds that it needs */
  int64_t cycles;       /* as reported: of SCALE-Sim's rules from 0, unless --no-faults */
  double utilization;   /* multiply-adds of the layer / (cycles * places of the array), 0 to 1 */
  const tpu_counts *counts;
  int64_t start, end;   /* cycles on the common timeline */
} sim_row;

/* A stretch of one unit's work; several instructions of a row when they stand close together. */
typedef struct sim_span {
  int64_t start, end, busy, bytes, count;
  int row;
  uint8_t op;           /* of the first instruction */
  int fifo;             /* tiles in the weight FIFO when it started */
} sim_span;

enum { SIM_BINS = 1024, SIM_BLOCKS = 2048 };

/* What happened when, in bounded memory: spans that stand closer than `gap` are joined once there are too
 * many; counters are kept in bins whose width doubles. */
typedef struct sim_recorder {
  tn_ctx *ctx;
  int most;             /* spans in all */
  int64_t gap, nspans;
  struct {
    int n;
    sim_span *spans;
  } track[TPU_MAX_CORES][TPU_UNITS];
  int64_t width;        /* cycles of a bin */
  double bytes[SIM_BINS]; /* DRAM and host traffic */
  int fifo[SIM_BINS];   /* most tiles seen; -1: nothing seen */
  /* The unified buffer in blocks: one is in use from a write to the last read before the next. */
  int64_t block;        /* bytes of one; 0: not watched */
  struct {
    int64_t written, read; /* cycle; -1: not since the last write */
  } blocks[TPU_MAX_CORES][SIM_BLOCKS];
  double in_use[SIM_BINS]; /* bytes * cycles */
  int64_t at;           /* where the program that runs now begins on the timeline */
  const int *row_of_tag; /* of it; -1: none */
} sim_recorder;
sim_recorder *sim_recorder_new(tn_ctx *ctx, int most, int64_t ub_bytes); /* 0: what is in use there is not watched */
void sim_record(void *recorder, const tpu_event *e); /* for tpu_sim_options.event */
void sim_recorded(sim_recorder *r); /* at the end of a program: what is still in use */
/* The spans of a track, joined until there are at most `most`; returns how many. */
int sim_joined(const sim_recorder *r, int core, int unit, int most, sim_span **out);

typedef struct sim {
  cli *c;
  const char *path;
  const tpu_machine *machine;
  tpu_timing timing;
  bool faults;
  int nrows;
  sim_row *rows;
  int64_t cycles;       /* of all, one after another */
  tpu_counts all;
  double utilization;
  double useful;        /* multiply-adds */
  tn_dtype dtype;       /* of most of them */
  int cores;            /* that take part */
  double bandwidth;     /* bytes per second of the memory that programs find their data in */
  int64_t at;           /* where the timeline ends so far */
  sim_recorder *recorder; /* null: nobody asked */
  double compile_s, simulate_s;
} sim;

/* ---- layers as programs for --timing tpu: cli_sim_layers.c ---- */

/* The element type that --dtype names; null: f16, or the first of bf16, i8, f32 that the array takes. */
tn_dtype sim_dtype(cli *c, const tpu_machine *m, const char *name);
double sim_row_cycles(const tpu_machine *m, tn_dtype t); /* 0: not taken */
/* On so many cores; 0: as many as make it fastest. */
tpu_program *sim_layer_program(tn_ctx *ctx, const tpu_machine *m, const fe_topology_layer *l, tn_dtype t, int cores);

/* ---- derived figures ---- */

double sim_seconds(const sim *s, int64_t cycles);
double sim_energy_uj(const tpu_counts *c);
/* Multiply-adds per second that all arrays in use could do; bytes per second of their memory. */
double sim_peak(const sim *s);
double sim_bandwidth(const sim *s);
double sim_intensity(const sim_row *r); /* operations (2 a multiply-add) per byte of DRAM traffic; 0: no traffic */

const char *sim_csv(const sim *s);
void sim_table(const sim *s, int most);
void sim_json(const sim *s, cli_json *j);
const char *sim_trace(const sim *s);
const char *sim_roofline(const sim *s, bool alone); /* SVG; alone: with a style of its own, for a file */
const char *sim_page(const sim *s);

/* A number as people read it: 12.3 M. */
const char *sim_short(tn_ctx *ctx, double v);
#endif
