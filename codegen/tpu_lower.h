/* tpu_lower.h — inside the compiler from kernels to instructions of the systolic machine.
 *
 *   call ── tpu_kernel.c ──┬─ tpu_contract.c  contractions: matrix unit
 *           chunks, homes  └─ tpu_vector.c, tpu_value.c  everything else: vector unit
 *                                 │
 *                             tpu_emit.c ── tpu_order.c   instructions; waits between units
 *
 * Loops whose iterations are independent become *lanes*: a statement runs for all lanes at once, as
 * vector instructions over up to TC_LANES axes. Reductions become lanes too where the order of
 * their updates stays that of the loops; all other loops are unrolled. A condition that bounds lanes
 * by numbers shrinks the *box* of lanes that run; any other becomes a mask.
 */
#ifndef TPU_LOWER_H
#define TPU_LOWER_H
#include "codegen/tpu_compile.h"
#include "ir/text.h"
#include <setjmp.h>

enum { TC_LANES = 10 };

/* ---- memory on the chip: tpu_arena.c ---- */
enum { TC_BLOCKS = 512 };
typedef struct tc_arena { /* free blocks by address; all sizes multiples of 64 */
  int n;
  int64_t at[TC_BLOCKS], size[TC_BLOCKS];
  int64_t middle;
  int64_t next; /* rotating allocations go on from here, so that what was just freed rests */
} tc_arena;
void tc_arena_init(tc_arena *a, int64_t base, int64_t bytes);
int64_t tc_arena_get(tc_arena *a, int64_t bytes, bool rotate); /* -1: full */
void tc_arena_put(tc_arena *a, int64_t at, int64_t bytes);

/* ---- order between units: tpu_order.c ---- */
typedef struct tc_order tc_order;
tc_order *tc_order_new(tn_ctx *ctx, int core);
/* The next instruction reads or writes bytes lo <= b < hi of a space; then what it waits for. */
void tc_order_access(tc_order *o, tpu_unit unit, tpu_space space, int64_t lo, int64_t hi, bool write);
void tc_order_emit(tc_order *o, tpu_program *p, tpu_inst i);
void tc_order_fence(tc_order *o, tpu_program *p, bool all_cores); /* a fence or a barrier: everything before is done */

/* ---- values ---- */
typedef struct tc_val { /* of every lane */
  tn_dtype t;
  tpu_space space;            /* UB, ACC; IMM; IOTA: base + sum stride * lane number */
  ir_scalar k;                /* IMM */
  int64_t base;               /* bytes, of lane 0 */
  int64_t stride[TC_LANES];   /* bytes; 0: the same along that lane */
  int64_t at, owned;          /* memory to release: address and bytes, or 0 */
} tc_val;

/* value = c0 + sum coef[l] * i_l over the numbers of the lanes */
typedef struct tc_affine {
  int64_t c0, coef[TC_LANES];
} tc_affine;

typedef struct tc_box { /* part of the lanes */
  int64_t lo[TC_LANES], n[TC_LANES];
} tc_box;

typedef enum tc_bind_kind { TC_UNBOUND, TC_CONST, TC_LANE, TC_EXPR, TC_VAL } tc_bind_kind;
typedef struct tc_bind { /* of a variable */
  tc_bind_kind kind;
  int64_t k; /* CONST; LANE: the lane */
  ix e;
  tc_val v;
} tc_bind;

/* Where a parameter lives. */
typedef struct tc_home {
  bool chip;
  bool tiled;      /* on the chip, with rows at the pitch of tc_pitch */
  int64_t address; /* bytes, in DRAM or on the chip */
} tc_home;

/* A buffer while its scope is open. */
typedef struct tc_mem {
  ir_buf *buf;
  int width;
  int rank;                         /* physical */
  int64_t extent[IR_MAX_RANK];
  tc_home home;                     /* parameters */
  bool acc;                         /* in the accumulators */
  bool far;                         /* in DRAM only: every access moves its own elements */
  bool loaded, stored, partial;     /* parameters, of the kernel: it is read; written; not all written by one nest */
  int64_t base;                     /* on the chip: of element `lo` */
  int64_t lo[IR_MAX_RANK], n[IR_MAX_RANK], stride[IR_MAX_RANK]; /* the box held; strides in bytes */
  int64_t lane[TC_LANES];           /* private memory of lanes: bytes per lane */
  int64_t at, bytes;                /* its memory on the chip */
} tc_mem;

typedef struct tc_late { /* a box of results that is not stored yet */
  tc_mem m;
  int64_t lo, hi; /* DRAM bytes that bound it */
} tc_late;

typedef struct tc_loop { /* whether a loop may become a lane, as what */
  bool parallel, reduction;
} tc_loop;

typedef struct tc_memo tc_memo;
typedef struct tc_cores tc_cores;
typedef struct tc {
  tn_ctx *ctx;
  const tpu_machine *m;
  const tpu_options *o;
  const tpu_tunables *tile; /* of the kernel; may be null */
  tpu_program *p;
  int ncores, core;       /* texts that are made; whose turn it is */
  tc_order *order[TPU_MAX_CORES];
  tc_cores *cores;        /* how they share the work */
  int64_t dram_written;   /* DRAM below is never written: inputs, weights */
  int64_t dram_dummy;     /* 64 bytes of DRAM that nobody reads */
  const ir_kernel *k;
  ir_map binds, mems, loops, physical;
  ir_map phases;          /* of all kernels */
  int ntrail;
  tc_bind **trail; /* bound variables, newest last */
  tc_arena scratch;
  int64_t scratch_base, scratch_bytes, acc_next;
  /* lanes */
  int nlanes;
  const ir_var *lane_var[TC_LANES];
  int64_t lane_lo[TC_LANES], lane_n[TC_LANES];
  int lane_order[TC_LANES]; /* of temporaries, outermost first */
  tc_box box;
  bool masked;
  tc_val mask;
  int64_t limit;      /* most lanes of a chunk */
  tc_memo *memo;      /* values of the running statement */
  bool every;         /* the instruction counts for each lane, also where none of its operands moves: updates */
  bool dry;           /* nothing is emitted: tried for its memory alone */
  bool open;          /* variables without a binding have their proven range */
  int nlate;          /* stores of the last chunk: they come behind what the next one loads, which is then under way while this one's is
                       * still being worked on, though a memory serves its transfers in the order of the text */
  tc_late *late;
  jmp_buf *full;      /* where to go when the scratch memory is out */
} tc;

/* Elements from one row to the next of an array on the chip whose last axis has n. */
static inline int64_t tc_pitch(const tc *c, int64_t n) {
  int64_t line = c->o->layout == TPU_LAYOUT_DENSE ? 0 : c->m->tile_cols;
  return line && n > 1 && 8 * n >= line ? (n + line - 1) / line * line : n;
}

/* ---- index expressions over lanes: tpu_affine.c ---- */
bool tc_affine_of(tc *c, ix e, tc_affine *out);                /* of an index expression, when it is */
void tc_range(tc *c, ix e, int64_t *lo, int64_t *hi);          /* over the box, both included */
void tc_affine_range(const tc *c, const tc_affine *a, int64_t *lo, int64_t *hi);
int tc_decide(tc *c, ix cond);                                 /* 0, 1, or -1: differs or not known */
bool tc_restrict(tc *c, ix cond, tc_box *box);                 /* the part of the box where it holds, if that is a box */

/* ---- values: tpu_value.c ---- */
tc_val tc_imm(tn_dtype t, ir_scalar k);
int64_t tc_alloc(tc *c, int64_t bytes, bool rotate);           /* of the scratch memory; leaves by c->full */
tc_val tc_temp(tc *c, tn_dtype t, unsigned lanes);             /* memory for the lanes of the set */
void tc_release(tc *c, tc_val *v);
unsigned tc_lanes_of(const tc *c, const tc_val *v);            /* along which it changes */
void tc_eval_begin(tc *c, int n, const ix *roots);             /* a statement's expressions */
tc_val tc_eval(tc *c, ix e);
void tc_eval_into(tc *c, ix e, const tc_val *dst);             /* under the mask */
void tc_eval_end(tc *c);
bool tc_shared(tc *c, ix e);                                   /* used more than once in the statement */
bool tc_ready(tc *c, ix e);                                    /* has its value already */
void tc_used(tc *c, ix e);                                     /* one of its uses is done with */
void tc_keep(tc *c, ix e);                                     /* the caller releases the value of e */
/* Where an access of the lanes lies. */
typedef enum tc_place_kind {
  TC_PLAIN,   /* an affine view */
  TC_CLIPPED, /* an affine view, within the memory only for the lanes of `inside` */
  TC_INDEXED  /* view + `index` elements, `index` a value on the chip */
} tc_place_kind;
typedef struct tc_place {
  tc_place_kind kind;
  tc_val view;
  tc_box inside;
  tc_val index;
  tc_val region; /* INDEXED: bytes at..at+owned may be touched */
  ix const *dims; /* physical indices */
} tc_place;
/* `key`: what the physical indices are remembered by: the load or the statement. */
const ix *tc_physical(tc *c, const ir_buf *b, const void *key, const ix *index);
tc_place tc_place_of(tc *c, const tc_mem *m, const void *key, const ix *index);
void tc_store_far(tc *c, const tc_mem *m, const void *key, const ix *index, const tc_val *v);

/* ---- chains: tpu_chain.c ---- */
/* e as one instruction of the activation unit, into *dst or, null, memory of its own; false: it is no chain, and
 * nothing was done but to evaluate operands. */
bool tc_chain(tc *c, ix e, const tc_val *dst, tc_val *made);

/* ---- instructions: tpu_emit.c. All run over the box of lanes. ---- */
void te_vector(tc *c, ir_opcode fn, const tc_val *dst, int n, const tc_val *args, bool masked);
void te_chain(tc *c, tpu_inst i, const tc_val *dst, const tc_val *src, int n, const tc_val *beside); /* i: the steps; beside: b, c */
void te_copy(tc *c, const tc_val *dst, const tc_val *src, bool masked);
/* region: its `at` and `owned` bound what may be touched. scatter: fn(old, src), or IX_CONST: src. */
void te_gather(tc *c, const tc_val *dst, const tc_val *src, const tc_val *index, const tc_val *region, bool masked);
void te_scatter(tc *c, const tc_val *dst, const tc_val *src, const tc_val *index, const tc_val *region, ir_opcode fn, bool masked);
/* A box of at most IR_MAX_RANK axes between DRAM and the chip; strides in bytes. */
void te_dma(tc *c, bool load, int rank, const int64_t *n, int width, int64_t dram, const int64_t *dram_stride, int64_t chip, const int64_t *chip_stride);
/* Rows between chip and DRAM by an index vector on the chip; DRAM bytes lo <= b < hi may be touched. */
void te_rows(tc *c, bool load, tn_dtype t, const tpu_operand *chip, const tpu_operand *dram, const tpu_operand *index, const int32_t *extent, int64_t lo, int64_t hi);
void te_access(tc *c, tpu_unit unit, tpu_space space, int64_t lo, int64_t hi, bool write);
void te_fence(tc *c);
int64_t te_here(const tc *c);                  /* place of the next instruction */
int64_t te_exit_unless(tc *c, int64_t at);     /* jumps to where te_land(result) says if the byte at `at` is 0 */
void te_land(tc *c, int64_t jump);
void te_jump(tc *c, int64_t to);
void te_emit(tc *c, tpu_inst i); /* with its effects; all other functions end here */
/* Axes of an instruction: extents and one stride per operand, outermost first; joined where possible. */
enum { TE_OPERANDS = 5 };
typedef struct te_axes {
  int n;
  int64_t extent[TC_LANES + IR_MAX_RANK], stride[TE_OPERANDS][TC_LANES + IR_MAX_RANK]; /* bytes; iota: units */
} te_axes;

/* ---- statements: tpu_vector.c ---- */
void tc_exec(tc *c, const ir_stmt *s);
int tc_push_lane(tc *c, const ir_var *v, int64_t lo, int64_t n);
void tc_pop_lane(tc *c);
void tc_bind_const(tc *c, const ir_var *v, int64_t k);
const tc_bind *tc_bound(const tc *c, const ir_var *v);         /* null: not in scope */
void tc_unbind(tc *c, int ntrail);                             /* all that were bound since c->ntrail was that */

const tc_loop *tc_loop_of(tc *c, const ir_stmt *loop);
int64_t tc_trips(tc *c, const ir_stmt *loop, int64_t *lo);     /* at most; throws when it has no bounds */
bool tc_uniform(tc *c, ix e);                                  /* one number for all lanes */
int64_t tc_weight(tc *c, const ir_stmt *s);                    /* elements that s makes for a lane */
/* A store as dst = op(dst, args[0]) or dst = fma(args[0], args[1], dst); false: it is no such update. */
bool tc_update_of(tn_ctx *ctx, const ir_stmt *s, ir_opcode *op, int *n, ix *args);

/* ---- kernels: tpu_kernel.c ---- */
/* slots: of the program, by parameter; home: by slot; null: for the survey. */
void tc_run_kernel(tc *c, const ir_kernel *k, const int *slots, const tc_home *home);

/* A perfect nest of independent loops. */
typedef struct tc_nest {
  int n;
  const ir_stmt *loop[TC_LANES];
  int64_t lo[TC_LANES], extent[TC_LANES];
  const ir_stmt *body;
} tc_nest;
/* Its loops, outermost first by the distance of their steps in the output. */
void tc_nest_order(tc *c, const tc_nest *nest, int *order);
/* Whether fn fits the memory: run so that it emits nothing. Keeps lanes and memory as they are. */
bool tc_try(tc *c, void (*fn)(tc *c, void *arg), void *arg);
void tc_move_box(tc *c, bool load, const tc_mem *m);           /* the box of a parameter between DRAM and chip */
void tc_touches(tc *c, const tc_nest *nest);
void tc_stage(tc *c, const ir_stmt *body);                      /* parameters in DRAM, as the lanes need them: in */
void tc_unstage(tc *c);                                        /* and out, by tc_store_late where nothing is read back */
void tc_store_late(tc *c);

/* ---- loops by remainders: tpu_phases.c ---- */
const ir_stmt *tc_phases(tc *c, const ir_stmt *s);              /* of a kernel's body: s where there is nothing to do */

/* ---- cores: tpu_cores.c ---- */
bool tc_part(tc *c, tc_nest *nest, const ir_stmt *s);           /* leaves the running core's part; false: it has none */
void tc_survey(tc *c, const tc_nest *nest, const ir_stmt *s, bool partly);

/* ---- contractions: tpu_contract.c ---- */
bool tc_contract(tc *c, const tc_nest *nest);
#endif
