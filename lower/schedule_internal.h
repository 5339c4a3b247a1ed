/* schedule_internal.h — what the rewrites of schedule steps share. */
#ifndef LW_SCHEDULE_INTERNAL_H
#define LW_SCHEDULE_INTERNAL_H
#include "lower/schedule.h"

enum { SCHED_MAX_ARGS = 16 };

typedef struct sched {
  tn_ctx *ctx;
  ir_kernel *k;          /* being rewritten: a copy of its own */
  const char *reason;    /* set by refuse() */
  int nargs;             /* of the current step, the step's name not counted */
  const char *arg[SCHED_MAX_ARGS];
  int64_t num[SCHED_MAX_ARGS]; /* of arguments that are numbers */
} sched;

/* A row of the step table: `args` is one letter per argument: v a loop that is there,
 * n a new name, i a number, b a buffer, s a string, * any number more of the last. */
typedef struct sched_step {
  const char *name, *args;
  bool (*apply)(sched *s); /* false after refuse() */
} sched_step;

/* The text in canonical spacing; `change` (may be null) may alter the arguments of each step. */
const char *sched_print(tn_ctx *ctx, const char *text, void (*change)(sched *s, const sched_step *step, void *user), void *user);
bool refuse(sched *s, const char *fmt, ...) IR_PRINTF(2, 3);
/* Replaces the loop by fn's result (null after refuse); there must be exactly one. */
bool sched_replace(sched *s, const char *name, const ir_stmt *(*fn)(sched *s, const ir_stmt *loop, void *user), void *user);
const ir_stmt *sched_loop(sched *s, const char *name); /* null after refuse */
bool sched_new_name(sched *s, const char *name);       /* false after refuse: taken */
const char *sched_free_ending(sched *s, const char *suffix); /* of copies of loops: the suffix, with a number if it is taken */
/* Constant number of iterations, or false. */
bool sched_extent(const ir_stmt *loop, int64_t *n);
/* A loop over [lo, hi) with a fresh variable of that range. */
ir_var *sched_var(sched *s, const char *name, ix lo, ix hi);

/* A loop's one update acc op= term of a register accumulator: acc = fma(a, b, acc) adds, and acc = op(acc, e) is one too. */
typedef struct sched_update {
  const ir_stmt *st;
  ir_store_op op;
  ix term, zero; /* zero: what op= leaves as it is */
  bool fma;      /* term is the whole fma */
} sched_update;
bool sched_find_update(sched *s, const ir_stmt *loop, sched_update *u); /* false after refuse */

bool sched_split(sched *s), sched_fuse(sched *s), sched_reorder(sched *s), sched_unroll(sched *s), sched_vectorize(sched *s),
    sched_parallel(sched *s), sched_serial(sched *s), sched_peel(sched *s), sched_narrow(sched *s), sched_tail(sched *s);
bool sched_distribute(sched *s), sched_raise(sched *s), sched_rfactor(sched *s), sched_chunk(sched *s), sched_layout(sched *s), sched_tensorize(sched *s), sched_cache(sched *s), sched_turn(sched *s), sched_fill(sched *s), sched_prefetch(sched *s), sched_muladd(sched *s),
    sched_algorithm(sched *s);
bool sched_winograd(sched *s), sched_winograd_weights(sched *s); /* lower/schedule_winograd*.c */
bool sched_splitk(sched *s); /* lower/schedule_splitk.c */
bool sched_attention(sched *s); /* lower/schedule_attention.c */
#endif
