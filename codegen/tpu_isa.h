/* tpu_isa.h — instructions and programs of the simulated systolic machine.
 *
 *              ┌─ host ────┐
 *  sequencer ──┼─ load ────┼── DRAM ⇄ UB                    every unit has a queue and works
 *  (registers, ├─ store ───┘                                through it in order; units are
 *   loops,     ├─ weights ── DRAM, UB → FIFO                ordered among each other by
 *   tags)      ├─ matrix ─── FIFO → shadow → array, UB → ACC    semaphores, fences and the FIFO
 *              └─ vector ─── UB, ACC → UB, ACC              alone
 *
 * Memory. DRAM (an image per program, all cores), and per core the unified buffer UB and
 * the accumulators ACC. Addresses count bytes from 0 in each space; an element must be aligned
 * to its size. ACC holds f32 or i32 only. Bytes start undefined, but those of input, weights
 * and constant segments; reading what was never written is an error of the program.
 *
 * Operands. A tensor instruction is a nest of loops over extent[0..3], extent[0]
 * outermost; element i of an operand lies at
 *     addr + reg + reg2 + (i0*stride[0] + i1*stride[1] + i2*stride[2] + i3*stride[3]) * size
 * stride counts elements of the operand's dtype, may be 0 (broadcast, reduction) or negative.
 * reg, reg2: numbers of address registers added to addr (0: none; register 0 is always 0).
 * Besides the three memories there are
 *   imm    the value itself: addr holds the integer, or the bits of the double, of dtype
 *   iota   addr + reg + reg2 + i0*stride[0] + ... + i3*stride[3], an integer of dtype (wraps)
 * Unused extents are 1. An extent of 0 means nothing is done. Semantics are exactly those of
 * the loops run one element after another in row-major order, so an operand may alias
 * another; a reduction in order is a destination with stride 0 that is a source too.
 *
 * Synchronisation, two ways; what two units access without an order between them must not
 * conflict (reported). Within a unit instructions start and take effect in order.
 *   after[u] = n > 0   starts once the n-th last instruction handed to the queue of unit u before this one
 *                      has completed, and so all before it (1: the latest); no wait if there were fewer.
 *                      Relative, so it works inside loops, and looks back, so it cannot deadlock
 *   wait[2], signal[2] semaphores 1..TPU_SEMAPHORES-1 (0: none). A semaphore counts: it starts at 0, signal
 *                      adds 1 when the instruction has completed; wait blocks until it is positive and
 *                      takes 1 away, before the instruction starts. Each semaphore of a core
 *                      has one waiting and one signalling unit; anything else is an error
 * An instruction of the sequencer waits with all that follows it.
 *
 * Sequencer. Hands instructions to the queues in program order, one each issue_cycles, and
 * waits while a queue is full (queue_depth).
 *   halt               ends the program (of this core); also the end of the text
 *   fence              waits until all units of this core have finished all that was handed out
 *   barrier            a fence in which all cores meet
 *   tag     imm        what follows belongs to tag imm of the program's table (a layer)
 *   config  reg, imm            reg = imm
 *   step    reg, reg2, imm      reg = reg + reg2 * imm when reg2 != 0, else reg + imm
 *   read    reg, operand        reg = one integer element of UB or ACC (extents 1). The sequencer reads
 *                               when it gets here: let it wait for who writes the element. Timing
 *                               alone: 1 the first imm times, then 0, then again from the start
 *   repeat  imm, reg2, span     runs the next `span` instructions imm times (0 and less: not at all); with
 *                               reg2 != 0: that register's value times. Nests up to TPU_MAX_NESTING;
 *                               an inner body lies within the outer. Jumps stay within their body
 *   jump    reg2, span          to the instruction at distance `span` from this one (negative: back,
 *                               not 0) if reg2 == 0 or register reg2 holds 0; else goes on. So `jump`
 *                               with reg2 0 always jumps
 *   sync    unit               does nothing in `unit`'s queue: carries waits and signals
 *
 * DMA.  host, load, store: dst[i] = src coordinate (first + i) inside [0, size) on every axis ?
 *   src[first + i] : fill;  src addressed with first + i (coordinate 0 at addr). size[d] = 0: the axis is
 *   not checked. Same dtype on both sides (moves bits). Any of DRAM and UB on either side.
 *   load runs in the load queue, store in the store queue, host in the host queue (the link to
 *   the host where the machine has one, else the DRAM's). They differ in nothing else.
 *   load.rows: dst[i] = src[i with i0 replaced by index[i0]]; store.rows: dst[i0 := index[i0]] = src[i];
 *   index: a vector of extent[0] integers in UB (its stride[0] counts), others ignored.
 *
 * Weights.  weights: reads a tile of K x N elements, extent = (k0, k1, k2, N), K = k0*k1*k2 with k2
 *   fastest, from DRAM or UB into the FIFO. Waits while the FIFO holds fifo_depth tiles.
 * Matrix.   matmul: A window-addressed times the resident tile. With TPU_SWAP it first takes the next
 *   tile of the FIFO: shifted into the shadow registers while the array still works, then
 *   swapped in. For row (z, y, x) of extent[0..2] and column j < extent[3]:
 *     acc = TPU_ACCUMULATE ? dst[z, y, x, j] : 0
 *     for k = 0 .. k_count-1, ascending:
 *       (c, t, r, s) = the (k_first + k)-th of the order: TPU_CHANNELS_LAST: c fastest, ((t*kh + r)*kw + s)*kc + c;
 *                      else s fastest, ((c*kd + t)*kh + r)*kw + s (as ONNX convolutions sum)
 *       Z = z0 + z*sz + t*dz,  Y = y0 + y*sy + r*dy,  X = x0 + x*sx + s*dx     (dz, dy, dx of any sign: transposed convolutions)
 *       if 0 <= Z < depth and 0 <= Y < height and 0 <= X < width (depth 0: Z is not checked; the others likewise)
 *         acc = step(acc, src[Z, Y, X, c] - a_zero, tile[k, j] - w_zero)
 *     dst[z, y, x, j] = acc          src.stride: of (Z, Y, X, c). Images of a batch may be what z counts: kd = 1, depth = 0
 *   What lies outside takes no step at all: it is skipped, which for finite values is zero padding.
 *   step: integers (i8, u8 in any mix): acc + a*b in i32, wraps, so any order gives the same.
 *         floats (bf16, f16, f32, both the same): fma(a, b, acc) in f32, rounded once to nearest
 *         even. Products of bf16 and f16 are exact in f32 (barring underflow), so this is also
 *         multiply, then add. In all cases the result equals the interpreter's loop
 *         `acc = fma(cast(a), cast(b), acc)` over ascending k from 0, whatever the K tiling.
 *   a_zero, w_zero: of integers only. dst: ACC, f32 or i32. A plain product has kd = kh = kw = 1, depth = height =
 *   width = 0, extent = (1, 1, M, N), kc >= k_first + k_count, stride (0, 0, lda, 1).
 *   Limits: k_count is the K of the tile and extent[3] its N; weight and input stationary: K <= rows,
 *   N <= cols; output stationary: N <= cols and extent[0]*[1]*[2] <= rows, K is free.
 *
 * Vector.  All ops of ir/scalar_ops.h with the interpreter's per-element results (ir/eval.c), on any dtype.
 *   v fn: dst[i] = fn(a[i], b[i], c[i]), dtypes as the op demands; a cast to its own dtype is a move.
 *     select reads the arm that is taken alone. A mask (any vector instruction but pool; space none: all):
 *     bool elements; where false nothing else is read and nothing is written.
 *   act: t = a[i]; then the steps of `chain` in order until one with fn 0; dst[i] = t. A step is
 *     t = fn(t), fn(t, x) or, with TPU_CHAIN_SWAP, fn(x, t); x by `arg`: b, c, imm0, imm1; `dtype`: that
 *     of t after the step. One pass over the elements whatever the steps (the pipeline behind
 *     the array); chains hold no op but those of the machine's activation unit:
 *     add, sub, mul, div, min, max, neg, abs, round, floor, ceil, cast, relu as max, sqrt, exp, tanh, sigmoid, erf.
 *   pool fn (add, min, max): dst[z,y,x,c] = v after  v = TPU_ACCUMULATE ? dst : init; for t, for r, for s: v = fn(v,
 *     src[Z, Y, X, c]) where inside, extent = (z, y, x, c); `init` a value as imm. kc, k_* unused (0).
 *   gather:  dst[i] = src[i + index[i]]: index counts elements of src, added to the address of i
 *   scatter: dst[i + index[i]] = src[i], or fn(old, src[i]) when fn != 0; in row-major order.
 *     index: any integer dtype, UB.
 *
 * Programs. Segments say what lies where in the DRAM: inputs are copied in before a run, outputs out after
 * it, both as dense row-major tensors; weights are bytes of the file. tpu_program_check() says
 * whether a program is sound for a machine.
 */
#ifndef CG_TPU_ISA_H
#define CG_TPU_ISA_H
#include "codegen/tpu_machine.h"
#include "ir/ir.h"

typedef enum tpu_unit {
  TPU_UNIT_SEQ, TPU_UNIT_HOST, TPU_UNIT_LOAD, TPU_UNIT_STORE, TPU_UNIT_WEIGHTS, TPU_UNIT_MATRIX, TPU_UNIT_VECTOR, TPU_UNITS
} tpu_unit;
typedef enum tpu_opcode {
#define ROW(e, text, unit, fields) TPU_##e,
#include "codegen/tpu_ops.h"
#undef ROW
  TPU_OPCODES
} tpu_opcode;
typedef enum tpu_fields {
  TPU_FIELDS_NONE, TPU_FIELDS_CONTROL, TPU_FIELDS_SYNC, TPU_FIELDS_DMA, TPU_FIELDS_INDEXED, TPU_FIELDS_WEIGHTS,
  TPU_FIELDS_WINDOW, TPU_FIELDS_CHAIN, TPU_FIELDS_VECTOR, TPU_FIELD_KINDS
} tpu_fields;
typedef struct tpu_op_info {
  const char *name;
  tpu_unit unit;
  tpu_fields fields;
} tpu_op_info;
extern const tpu_op_info tpu_ops[TPU_OPCODES];
extern const char *const tpu_unit_names[TPU_UNITS]; /* "sequencer", "host", "load", ... */

typedef enum tpu_space { TPU_NONE, TPU_DRAM, TPU_UB, TPU_ACC, TPU_IMM, TPU_IOTA, TPU_SPACES } tpu_space;
extern const char *const tpu_space_names[TPU_SPACES]; /* "none", "dram", "ub", "acc", "imm", "iota" */

enum { TPU_ACCUMULATE = 1, TPU_SWAP = 2, TPU_CHANNELS_LAST = 4 }; /* flags */
enum {
  TPU_SEMAPHORES = 256, TPU_REGISTERS = 32, TPU_MAX_NESTING = 16, TPU_MAX_CORES = 64, TPU_CHAIN = 8, TPU_COUNT_MAX = 65535
};
#define TPU_ADDRESS_MAX ((int64_t)1 << 50) /* of addresses, registers added, either sign */
enum { TPU_ARG_NONE, TPU_ARG_B, TPU_ARG_C, TPU_ARG_IMM0, TPU_ARG_IMM1, TPU_CHAIN_SWAP = 8 };

typedef struct tpu_operand { /* 32 bytes */
  int64_t addr;
  int32_t stride[4];
  uint8_t space, dtype;  /* tpu_space, tn_dtype */
  uint8_t reg, reg2;
  uint32_t zero;         /* keeps the size a multiple of 8 */
} tpu_operand;

typedef struct tpu_window { /* 96 bytes: matmul, pool */
  int32_t y0, x0, height, width;
  int32_t sy, sx, dy, dx, kh, kw, kc;
  int32_t k_first, k_count;
  int16_t a_zero, w_zero;
  int64_t init;          /* pool: as addr of an imm */
  int32_t z0, depth, sz, dz, kd;
  int32_t zero[3];
} tpu_window;

typedef struct tpu_pad { /* 64 bytes: DMA */
  int32_t first[4], size[4];
  int64_t fill;          /* bits of an element, low bytes first */
  int64_t zero[3];
} tpu_pad;

typedef struct tpu_step_fn { /* one step of a chain */
  uint8_t fn;            /* ir_opcode; 0 (IX_CONST): the end */
  uint8_t arg;           /* TPU_ARG_*, perhaps | TPU_CHAIN_SWAP */
  uint8_t dtype;         /* of the result */
  uint8_t zero;
} tpu_step_fn;

/* An instruction: 256 bytes, little-endian in files. */
typedef struct tpu_inst {
  uint8_t op, flags, fn, unit; /* tpu_opcode; TPU_ACCUMULATE...; ir_opcode; sync: the queue */
  uint8_t wait[2], signal[2];  /* semaphores, 0: none */
  uint8_t reg, reg2;           /* control */
  uint8_t zero[2];
  int32_t span;                /* repeat, jump */
  uint16_t after[8];           /* by tpu_unit; of the sequencer and [7]: 0 */
  int32_t extent[4];
  int64_t imm;                 /* control; chain: imm0 (as addr of an imm of the step's operand dtype) */
  int64_t imm1;                /* chain */
  tpu_operand dst, src;        /* read, weights: src alone; v: src is a */
  union {
    struct {
      union {
        struct { tpu_operand b, c; };  /* v, act */
        tpu_operand index;             /* gather, scatter, load.rows, store.rows */
        tpu_pad pad;                   /* host, load, store */
      };
      tpu_operand mask;                /* v, act, gather, scatter */
    };
    tpu_window win;                    /* matmul, pool */
  };
  tpu_step_fn chain[TPU_CHAIN];
} tpu_inst;

/* ---- building instructions ---- */
tpu_inst tpu_inst_of(tpu_opcode op); /* zero, with extents 1 where the op has extents, window steps 1 */
static inline tpu_operand tpu_at(tpu_space space, tn_dtype t, int64_t addr, int32_t s0, int32_t s1, int32_t s2, int32_t s3) {
  return (tpu_operand){addr, {s0, s1, s2, s3}, (uint8_t)space, (uint8_t)t, 0, 0, 0};
}
tpu_operand tpu_imm(tn_dtype t, double v);       /* the value rounded to t */
tpu_operand tpu_imm_int(tn_dtype t, int64_t v);  /* wrapped to t */
int64_t tpu_imm_bits(tn_dtype t, ir_scalar v);   /* what addr of an imm holds */

/* ---- programs ---- */
typedef enum tpu_segment_kind { TPU_SEG_INPUT, TPU_SEG_OUTPUT, TPU_SEG_WEIGHTS, TPU_SEG_SCRATCH, TPU_SEG_STATE, TPU_SEG_KINDS } tpu_segment_kind;
typedef struct tpu_segment {
  const char *name;
  tpu_segment_kind kind;
  int index;                  /* inputs, outputs: number in the call */
  int64_t addr, bytes;        /* in DRAM; addr a multiple of 64; segments do not overlap */
  tn_dtype dtype;             /* inputs, outputs: the dense row-major tensor */
  int rank;
  int64_t dims[IR_MAX_RANK];
  const void *data;           /* weights: the bytes */
} tpu_segment;

typedef struct tpu_tag {      /* what a stretch of the program computes: a row of reports */
  const char *name;
  int64_t M, N, K;            /* of its product; 0 where there is none */
  int64_t macs;               /* multiply-adds that the layer needs */
} tpu_tag;

typedef struct tpu_core_text {
  int64_t n;
  tpu_inst *insts;
} tpu_core_text;

typedef struct tpu_program {
  const char *machine;        /* name of the machine it was made for */
  int ncores;                 /* texts; run on the first ncores cores */
  tpu_core_text core[TPU_MAX_CORES];
  int nsegments;
  tpu_segment *segments;
  int64_t dram_bytes;         /* of the image */
  int ntags;
  tpu_tag *tags;              /* tag 0: what comes before the first tag instruction */
} tpu_program;

tpu_program *tpu_program_new(tn_ctx *ctx, const char *machine, int ncores); /* with tag 0 "" */
tpu_inst *tpu_emit(tn_ctx *ctx, tpu_program *p, int core, tpu_inst i);      /* valid until the next emit */
int tpu_program_tag(tn_ctx *ctx, tpu_program *p, tpu_tag tag);              /* its number */
tpu_segment *tpu_program_segment(tn_ctx *ctx, tpu_program *p, tpu_segment s);

/* Null, or why an instruction is not one of this machine (null machine: of any). */
const char *tpu_inst_check(tn_ctx *ctx, const tpu_machine *m, const tpu_inst *i);
/* Null, or what is wrong with a program, with core and instruction number. */
const char *tpu_program_check(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p);

/* ---- what an instruction touches (tpu_boxes.c): for checks and for who computes waits ---- */

/* A strided box of elements in a memory, dense axes merged: what an operand touches. */
typedef struct tpu_box {
  tpu_space space;
  bool write;
  int64_t lo, hi;      /* bytes [lo, hi) that bound it; lo == hi: nothing */
  int n;               /* axes left, outermost first */
  int64_t extent[4], stride[4]; /* strides in bytes, made positive; the run of `run` bytes is innermost */
  int64_t run;
} tpu_box;

enum { TPU_BOXES = 6 };
/* Boxes that are read and written, at most TPU_BOXES; their number. Registers must have been added. Not told: rows and
 * elements that an index operand chooses; that weights fill the FIFO and a swap empties it; the old
 * contents of dst where it accumulates (the same box as the one written). */
int tpu_boxes(const tpu_inst *i, tpu_box *out);
tpu_box tpu_operand_box(const tpu_operand *o, const int32_t *extent, bool write); /* empty when not in a memory */
/* Whether two boxes of one space share a byte; `doubt` when they have too many pieces to tell. */
bool tpu_boxes_meet(const tpu_box *a, const tpu_box *b, bool doubt);

/* ---- text (tpu_asm.c): an instruction a line; print and parse are inverse. Large weights are
 * named by size and hash; `data` gives their bytes when reading (null: none can be read). ---- */
const char *tpu_inst_print(tn_ctx *ctx, const tpu_inst *i);
const char *tpu_program_print(tn_ctx *ctx, const tpu_program *p);
tpu_program *tpu_program_parse(tn_ctx *ctx, const char *text, const char *file); /* throws TN_EINPUT, file:line:column */

/* ---- files (tpu_binary.c): magic, version, checksum, machine, segments, tags, texts, weights ---- */
enum { TPU_FILE_VERSION = 2 };
void tpu_program_write(tn_ctx *ctx, const tpu_program *p, const char *path);  /* throws TN_ERESOURCE; all or nothing */
const void *tpu_program_encode(tn_ctx *ctx, const tpu_program *p, size_t *n);
/* The program points into `bytes`. Throws TN_EINPUT naming `file` and what is wrong. */
tpu_program *tpu_program_decode(tn_ctx *ctx, const void *bytes, size_t n, const char *file);
tpu_program *tpu_program_read(tn_ctx *ctx, const char *path);
bool tpu_is_program(const void *bytes, size_t n); /* starts with the magic */
#endif
