/* tpu_sim.h — runs a program of the systolic machine: its values, its cycles, or both.
 *
 *   program ── sequencer ──┬─ timing: when each instruction starts and ends   (tpu_time.c)
 *                          └─ values: what it does to the memories            (tpu_exec.c, tpu_vector.c)
 *
 * One pass over the instructions drives both. Time advances per instruction, never per cycle: an instruction
 * starts at the latest of what it waits for (its queue, semaphores, FIFO, channel), all of it sums and
 * maxima, so with one core a faster memory never makes a fixed program slower. DRAM channels
 * serve the transfers of one core in program order; several cores: first come, first served.
 *
 * Timing of `tpu`: the array takes a row of A per row_cycles; rows + cols - 1 cycles later the last
 * result is there while the next product already runs; the next tile shifts in meanwhile.
 * Of `scalesim`: nothing overlaps and memory costs nothing. Weight and input stationary: a tile takes
 * `rows` cycles to load, a product M + rows + cols - 2; output stationary: K + rows + cols - 2. There
 * `repeat` costs its count times its body without running it again where values are not asked for.
 */
#ifndef RT_TPU_SIM_H
#define RT_TPU_SIM_H
#include "codegen/tpu_isa.h"

typedef enum tpu_timing { TPU_TIMING_TPU, TPU_TIMING_SCALESIM } tpu_timing;

/* Where the cycles of the array went, as in Table 3 of the TPU v1 paper (Jouppi et al., ISCA 2017):
 *   total = active + weight_stall + weight_shift + non_matrix
 *   non_matrix = raw_stall + input_stall + other_stall     exactly */
typedef struct tpu_cycles {
  int64_t total;
  int64_t active;        /* rows are in the array */
  int64_t weight_stall;  /* waits for a tile from the weight memory; not while its fetching waited for another unit */
  int64_t weight_shift;  /* waits for a tile that is being shifted in */
  int64_t non_matrix;
  int64_t raw_stall;     /* waits for the vector unit (activations of the layer before), or its own results */
  int64_t input_stall;   /* waits for the load or host DMA */
  int64_t other_stall;   /* all else: nothing to do, the sequencer, stores, work of the vector unit alone */
} tpu_cycles;

typedef enum tpu_energy {
  TPU_ENERGY_MAC, TPU_ENERGY_SHIFT, TPU_ENERGY_UB, TPU_ENERGY_ACC, TPU_ENERGY_DRAM, TPU_ENERGY_VECTOR, TPU_ENERGY_STATIC,
  TPU_ENERGY_KINDS
} tpu_energy;

typedef struct tpu_counts {
  tpu_cycles cycles;
  int64_t instructions;
  int64_t busy[TPU_UNITS];                       /* cycles in which the unit works */
  int64_t macs;                                  /* multiply-adds done (useful) */
  int64_t mac_slots;                             /* places of the array while it was active: rows * cols * cycles */
  int64_t dram_read, dram_written, host_bytes;   /* bytes moved */
  int64_t ub_read, ub_written, acc_read, acc_written;
  int64_t vector_elements;
  int64_t sram_ifmap_reads, sram_filter_reads, sram_ofmap_writes; /* elements, as SCALE-Sim counts them (with its faults if
                                                    options.faults) */
  int64_t tiles, matmuls;                        /* weight tiles taken into the array; matmul instructions */
  double energy_pj[TPU_ENERGY_KINDS];            /* static energy only in sums over the whole program */
} tpu_counts;

typedef struct tpu_tag_result { /* tags in order; their cycles add up to the whole's: a cycle in which the array works
                                   belongs to its tag, any other to the first tag that was not finished then. */
  tpu_counts counts;
  int64_t first, last;   /* first start and last completion of its instructions; 0, 0 if none */
  int64_t reported;      /* cycles.total, minus 1 with SCALE-Sim's faults */
} tpu_tag_result;

typedef struct tpu_result {
  tpu_timing timing;
  int ncores;
  int64_t cycles;              /* until the last core is done */
  double seconds;              /* at the machine's clock */
  tpu_counts all;              /* sums over cores; cycles of the core that finished last */
  tpu_counts core[TPU_MAX_CORES];
  int ntags;
  tpu_tag_result *tags;        /* sums over cores; cycles and times of the core that finished last */
  double utilization;          /* macs / (cycles * places of the arrays of the cores used) */
} tpu_result;

/* One instruction as it went, for timelines. */
typedef struct tpu_event {
  int core;
  tpu_unit unit;
  const tpu_inst *inst;
  int64_t number;        /* of the instruction in its text */
  int tag;
  int64_t issued;        /* handed to the queue */
  int64_t start, end;    /* occupies the unit */
  int64_t done;          /* its effect is there, semaphores are signalled */
  int64_t bytes;         /* DRAM or host traffic */
  int fifo;              /* tiles in the weight FIFO at start */
} tpu_event;

typedef struct tpu_sim_options {
  tpu_timing timing;
  bool no_values;        /* timing alone: memories are not touched (a `read` gives 0) */
  bool no_checks;        /* values: leave out the search for undefined reads and unordered conflicts */
  bool faults;           /* scalesim: SCALE-Sim's known faults (totals from 0, ofmap writes of output stationary) */
  int64_t max_instructions; /* gives up with TN_ERESOURCE; 0: 2^40 */
  int64_t max_work;      /* elements and multiply-adds; 0: 2^60 */
  void (*event)(void *user, const tpu_event *e); /* may be null; per unit in order of start */
  void *user;
} tpu_sim_options;

/* Runs a program. in[i], out[i]: dense row-major tensors by segment index (null with no_values). state: bytes of
 * state segments, one after another by address, updated (null: zeros). Null options: all defaults.
 * Errors of the program throw TN_EINPUT and name core, instruction number and address: a deadlock
 * (with what each unit waits for), undefined or out-of-range memory, unordered accesses. */
const tpu_result *tpu_simulate(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p, const tpu_sim_options *o,
                               const void *const *in, void *const *out, void *state);
#endif
