/* tpu_internal.h — state of a run of the systolic machine, shared by runtime/tpu_*.c. */
#ifndef RT_TPU_INTERNAL_H
#define RT_TPU_INTERNAL_H
#include "runtime/tpu_sim.h"
#include <string.h>

/* ---- memories (tpu_mem.c) ---- */
typedef struct tpu_mem {
  tn_ctx *ctx;
  tpu_space space;
  int64_t limit;       /* bytes that exist */
  int64_t size;        /* bytes allocated so far; on-chip memories grow when touched */
  uint8_t *bytes;
  uint8_t *undefined;  /* 1 for each byte never written; null without checks */
} tpu_mem;

typedef struct tpu_access { /* in a unit's history, for unordered conflicts */
  int64_t index;       /* instruction of the unit, counted */
  int64_t number;      /* in the text */
  tpu_box box;
} tpu_access;

/* ---- units ---- */
typedef struct tpu_clock { int64_t known[TPU_UNITS]; } tpu_clock; /* instructions of each unit known to be complete */

typedef struct tpu_done {
  int64_t time;
  tpu_clock clock;     /* what was complete when it started */
} tpu_done;

typedef struct tpu_pending { /* handed to a queue, not yet timed */
  const tpu_inst *inst;
  tpu_inst copy;       /* with the registers added, where it has some */
  int64_t number, issued;
  int tag;
  bool waits;          /* has any after or wait */
  int held_by;         /* unit for whose full queue, or at a fence, the sequencer last waited */
  int64_t after[TPU_UNITS]; /* index of the instruction that must be complete, -1: none */
  tpu_clock clock;     /* of the sequencer */
} tpu_pending;

typedef struct tpu_unit_state {
  int64_t handed, timed;   /* instructions */
  int64_t free, last_done; /* times */
  tpu_pending *queue;      /* ring of queue_depth (a power of two) */
  tpu_done *done;          /* ring of the last `history` */
  int64_t *start;          /* ring of queue_depth */
  tpu_clock clock;
  tpu_access *recent;      /* ring that grows to TPU_RECENT */
  int64_t nrecent, recent_cap;
  int64_t bound[TPU_SPACES][2][2]; /* read, written: [lo, hi) of all its accesses */
} tpu_unit_state;

typedef struct tpu_semaphore {
  tpu_done *times;         /* ring, cap a power of two */
  int64_t head, tail, cap;
  int8_t waiter, signaller; /* units; -1: nobody yet */
} tpu_semaphore;

/* ---- weights ---- */
typedef struct tpu_tile {
  float *values;           /* [(N + 15) / 16][K][16], converted; null without values */
  size_t room;             /* bytes of it */
  int zero;                /* zero point already taken off */
  int64_t k, n;
  uint8_t dtype;
  bool on_chip;            /* came from UB */
  int64_t arrival, popped; /* times; popped: its place in the FIFO is free */
  int64_t held;            /* its fetching waited until then for other units: not the memory's fault... */
  int blame;               /* ...but on this account (tpu_time.c) */
  int64_t weights_index;   /* who made it */
} tpu_tile;

typedef struct tpu_loop { int64_t start, end, left, count; } tpu_loop; /* end excluded */

typedef struct tpu_snapshot { /* one turn of a repeat that may be multiplied: see tpu_sim.c */
  bool usable;
  int64_t free;            /* of the array */
  tpu_counts counts;       /* of the tag */
} tpu_snapshot;

typedef struct tpu_visit { int64_t until; int tag; } tpu_visit; /* cycles before `until` belong to tag */

typedef struct tpu_core {
  struct tpu_sim *sim;
  int id;
  const tpu_inst *text;
  int64_t n, pc;
  int64_t reg[TPU_REGISTERS];
  tpu_loop loop[TPU_MAX_NESTING];
  tpu_snapshot snapshot[TPU_MAX_NESTING];
  int depth;
  bool halted, at_barrier;
  int tag;
  int64_t time;            /* when the sequencer can hand out the next instruction */
  int held_by;             /* unit that it last waited for */
  tpu_clock clock;
  int npending;
  tpu_unit_state unit[TPU_UNITS];
  tpu_semaphore sem[TPU_SEMAPHORES];
  tpu_mem mem[TPU_SPACES]; /* UB and ACC; DRAM is the sim's */
  /* weights: tiles[taken..made) are in the FIFO */
  tpu_tile *tiles;         /* ring, fifo_depth + 2 or more */
  int64_t tile_cap, made, taken;
  int64_t shadow_free;     /* time from which the shadow registers may be filled */
  tpu_tile active;
  /* attribution of the array's time */
  int64_t cursor;          /* cycles before it are attributed */
  tpu_visit *visit;        /* ring of VISITS */
  int64_t visit_head, visit_tail;
  int64_t tag_last;        /* latest completion of this visit of the tag */
  tpu_tag_result *tags;
  int64_t end;             /* latest completion of anything */
  /* several cores: accesses of the DRAM since they last met, a ring of TPU_RECENT; a transfer that waits for its turn */
  tpu_access *shared;
  int64_t nshared;
  bool asking, granted;
  int64_t ask_time;
  int64_t *read_turn;      /* timing alone: times each `read` has run, by instruction number */
  float *scratch;          /* of the matrix and vector engines */
  size_t scratch_bytes;
} tpu_core;

typedef struct tpu_sim {
  tn_ctx *ctx;
  const tpu_machine *m;
  const tpu_program *p;
  tpu_sim_options o;
  bool scalesim, values, checks;
  int64_t queue_depth, history; /* powers of two */
  int64_t channel_free[3], host_free;
  double bytes_per_cycle[3], host_bytes_per_cycle;
  int channel_of[TPU_UNITS];
  tpu_mem dram;
  int64_t constant;        /* DRAM below is inputs and weights */
  tpu_core *cores;
  int64_t instructions, work;
  struct tpu_vector_cache *vector; /* expansions of exp, tanh, ... (tpu_vector.c) */
} tpu_sim;

enum { TPU_RECENT = 4096, TPU_VISITS = 4096 };

/* ---- errors: "core 0, instruction 17 (matmul): ..." ---- */
void tpu_fault(const tpu_core *c, const tpu_inst *i, int64_t number, const char *fmt, ...) IR_PRINTF(4, 5) IR_NORETURN;

/* ---- tpu_mem.c ---- */
void tpu_mem_open(tpu_mem *m, tn_ctx *ctx, tpu_space space, int64_t limit, bool checks);
tpu_mem *tpu_mem_of(tpu_core *c, int space);
/* Memory [addr, addr + n): grown to exist; faults when outside. `write` also defines it, else it must be defined. */
uint8_t *tpu_touch(tpu_core *c, const tpu_inst *i, int64_t number, int space, int64_t addr, int64_t n, bool write);
/* The same without the look at definedness, for boxes: bounds and growth alone. */
void tpu_reach(tpu_core *c, const tpu_inst *i, int64_t number, int space, int64_t lo, int64_t hi);
void tpu_define(tpu_mem *m, int64_t addr, int64_t n);
void tpu_need_defined(tpu_core *c, const tpu_inst *i, int64_t number, const tpu_mem *m, int64_t addr, int64_t n);
/* Faults when an access of `p` conflicts with one that is not ordered before it; then remembers its own. */
void tpu_check_order(tpu_core *c, int unit, const tpu_pending *p, int64_t index);

/* ---- tpu_time.c ---- */
/* Times the head of a unit's queue if all that it waits for is known. False: not yet. May set c->asking. */
bool tpu_time_head(tpu_core *c, int unit);
void tpu_switch_tag(tpu_core *c, int tag);
void tpu_close_account(tpu_core *c); /* attributes what is left until c->end */
tpu_done *tpu_done_of(tpu_core *c, int unit, int64_t index);
void tpu_join(tpu_clock *into, const tpu_clock *from);
bool tpu_waits_known(const tpu_core *c, const tpu_pending *p);
/* Latest of what it waits for; takes the semaphores. cause[w]: latest among those of unit w. */
int64_t tpu_take_waits(tpu_core *c, const tpu_pending *p, int unit, tpu_clock *clock, int64_t *cause);
void tpu_send_signals(tpu_core *c, const tpu_inst *i, int64_t number, int unit, int64_t time, const tpu_clock *clock);

/* ---- values ---- */
void tpu_work(tpu_core *c, int64_t n);  /* counts; throws when there is too much */
void tpu_execute(tpu_core *c, const tpu_inst *i, int64_t number);        /* tpu_exec.c: all but those below */
void tpu_take_tile(tpu_core *c);                                          /* FIFO head becomes the active tile */
void tpu_matmul(tpu_core *c, const tpu_inst *i, int64_t number);          /* tpu_matmul.c */
void tpu_pool(tpu_core *c, const tpu_inst *i, int64_t number);            /* tpu_matmul.c */
void tpu_vector(tpu_core *c, const tpu_inst *i, int64_t number);          /* tpu_vector.c: v, act */
void tpu_gather(tpu_core *c, const tpu_inst *i, int64_t number);          /* tpu_exec.c: gather, scatter */
void *tpu_scratch(tpu_core *c, size_t bytes);                             /* contents are lost when it grows */
/* An operand in memory as bytes, checked: aligned, inside, and if it is read, defined. */
uint8_t *tpu_operand_bytes(tpu_core *c, const tpu_inst *i, int64_t number, const tpu_operand *o, const tpu_box *box);
bool tpu_box_defined(tpu_core *c, const tpu_box *b);  /* all bytes of its runs */
void tpu_box_define(tpu_core *c, const tpu_box *b);

/* ---- blocks of values (tpu_kernels.c): f16, bf16, f32 as float, f64 as double, all else as int64_t ---- */
enum { TPU_BLOCK = 256 };
typedef union tpu_block { float f[TPU_BLOCK]; double d[TPU_BLOCK]; int64_t i[TPU_BLOCK]; } tpu_block;
/* n <= TPU_BLOCK elements, `stride` bytes apart. */
void tpu_block_load(tn_dtype t, const uint8_t *p, int64_t stride, int n, tpu_block *to);
void tpu_block_store(tn_dtype t, uint8_t *p, int64_t stride, int n, const tpu_block *from);
void tpu_block_fill(tn_dtype t, int64_t imm_bits, int n, tpu_block *to);
/* out[j] = op(args[0][j], ...), as ir/eval.c; no op with an expansion. out may be an argument. */
void tpu_block_op(tn_ctx *ctx, ir_opcode op, tn_dtype result, const tn_dtype *types, const tpu_block *const *args, tpu_block *out, int n);
/* c[m][16] of `rows` <= 6 rows += a[m][k] * panel[k][16], k ascending, one fma a step; c and a by rows of pitch. */
void tpu_panel_product(int rows, int64_t depth, const float *a, int64_t a_pitch, const float *panel, float *c, int64_t c_pitch);
/* One row, at chosen steps alone: c[p][16] += a[j] * panel[p][k[j]][16] for p < panels, panel_pitch floats apart. */
void tpu_row_product(int64_t n, const float *a, const int32_t *k, const float *panel, int64_t panel_pitch, int64_t panels, float *c);

/* Whether an instruction waits for anything: most do not, and are not asked twice. */
static inline bool tpu_has_waits(const tpu_inst *i) {
  uint64_t after[2];
  memcpy(after, i->after, sizeof after);
  return after[0] | after[1] || i->wait[0] || i->wait[1];
}

static inline int64_t tpu_elements(const int32_t *e) { return (int64_t)e[0] * e[1] * e[2] * e[3]; }
#endif
