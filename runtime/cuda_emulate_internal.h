/* cuda_emulate_internal.h — shared by runtime/cuda_emulate.c and runtime/cuda_mbar.c. */
#ifndef RT_CUDA_EMULATE_INTERNAL_H
#define RT_CUDA_EMULATE_INTERNAL_H
#include "ir/interp.h"
#include "runtime/cuda_emulate.h"

enum { NOBODY = 0xffff, GROUPS = 256, MAX_GROUPS = 12 /* warpgroups */, MAX_MBARS = 48, MAX_OPERANDS = 10 };

enum { COPY = 1, BULK }; /* of cp.async; of the TMA unit, to global memory */
typedef struct epoch {
  uint16_t thread;  /* NOBODY: never */
  uint8_t pending;  /* an asynchronous access of the thread's group: over once that is waited for */
  uint32_t clock;   /* pending: the group */
} epoch;

typedef struct cell {
  epoch write, read;
  uint32_t *readers; /* clock of the last read by each thread, when several read since the last write */
  uint32_t product[MAX_GROUPS]; /* by warpgroup: 1 + the group of products that touches it, 0: none */
  uint16_t leaver;   /* the thread that had the TMA unit read it */
  uint32_t leaving;  /* 1 + the group of that, 0: none */
  int64_t owner;     /* of global memory: 1 + the block that stored to it in this launch */
} cell;

typedef struct shadow {
  const ir_buf *buf;
  cell *cells;
  int64_t n;
  int64_t private_elements; /* of one thread; 0: shared by the block */
  bool global;
} shadow;

typedef struct async { /* the copies or products of a thread: groups in order */
  uint32_t open, done;     /* the group being filled; all before `done` are over */
  uint32_t used;           /* 1 + the last group in which there is something */
  uint32_t over[GROUPS];   /* clock of the thread when it learnt so, by group mod GROUPS */
} async;

typedef struct mbar { /* an mbarrier of the block */
  const ir_buf *buf;
  int64_t at;
  int home;                /* the block of the cluster that has it */
  uint32_t landed;         /* the phase in which bytes came last, plus 1 */
  int maker;               /* the thread that initialised it, and when */
  uint32_t made;
  int expected, pending;   /* arrivals of a phase; those still to come */
  int64_t bytes;           /* announced less copied */
  uint32_t phase;          /* phases that are over */
  uint32_t *arrived, *over; /* clocks: of this phase's arrivals so far; of the phase before */
  uint32_t *seen_phase, *seen; /* by thread: the phase that it last waited for, plus 1, and its clock then */
} mbar;

/* The statement of an mbarrier or a copy that is being run: what its block told so far. */
typedef struct operation {
  const ir_stmt *tile;     /* null: none */
  const ir_buf *ops;
  int64_t takes[MAX_OPERANDS];
  mbar *bar;
  int64_t loads, stores;   /* elements of a copy so far */
} operation;

typedef struct emulator {
  tn_ctx *ctx;
  const cu_tile *tile;
  int threads, width;      /* of a cluster; of a block */
  uint32_t *clock;         /* [threads][threads, then mbarriers] */
  mbar bars[MAX_MBARS];
  int nbars;
  operation op;
  async *copies;           /* by thread */
  async *reads, *writes;   /* by thread: of what the TMA unit takes out of shared memory; brings to global memory */
  async *products;         /* by the first thread of a warpgroup */
  uint32_t *remote;        /* [blocks, threads]: when the thread last did something to a barrier of another block */
  uint32_t *announced;     /* by thread: its barriers made up to this clock are there for other blocks */
  uint32_t *proxied;       /* by thread: its writes up to this clock are visible to the asynchronous proxy */
  uint64_t stores;         /* to private arrays so far, and the count at the last fence of each warpgroup */
  uint64_t fenced[MAX_GROUPS];
  bool fences[MAX_GROUPS]; /* whether there was one in this block */
  bool multiplying;
  int lo, hi;              /* the threads that run the current statement */
  int saved[16][2], depth;
  bool copying;
  const ir_buf *vector;    /* whose element comes next in a load or store of several, and must lie at a multiple of these bytes */
  int64_t vector_bytes;
  const ir_buf *matrix;    /* what matrices are being stored to: eight elements a row, side by side */
  int64_t matrix_at;       /* where the last one went */
  int matrix_elements;     /* so far */
  const ir_stmt *launch;
  int64_t block;
  shadow *shadows;
  int nshadows;
} emulator;

static inline int rt_cuda_width(const emulator *m) { return m->threads + MAX_MBARS; }
#define KNOWS(m, u, t) ((m)->clock[(size_t)(u) * (size_t)rt_cuda_width(m) + (size_t)(t)])

static inline int rt_cuda_blocks(const emulator *m) { return m->threads / m->width; }

/* cuda_mbar.c */
void rt_cuda_mbar_end(emulator *m, tn_ctx *ctx);    /* of a cluster */
void rt_cuda_mbar_begin(emulator *m);  /* of a block */
bool rt_cuda_mbar_atom(const char *atom);
void rt_cuda_mbar_tile(emulator *m, tn_ctx *ctx, const ir_stmt *s, bool enter);
/* An access within such a statement. True: dealt with. */
bool rt_cuda_mbar_access(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, bool store, ir_scalar v);
/* cuda_emulate.c */
int64_t rt_cuda_share(emulator *m, const ir_buf *b); /* elements of shared memory of one block */
int rt_cuda_home(emulator *m, const ir_buf *b, int64_t at); /* the block of the cluster in whose shared memory the element is */
void rt_cuda_leaves(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at); /* an element that the TMA unit reads in shared memory */
void rt_cuda_left(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at);   /* that it writes in global memory */
void rt_cuda_copied(emulator *m, tn_ctx *ctx, const ir_buf *b, int64_t at, int bar); /* an element that the TMA unit writes */
#endif

