/* ctx_internal.h — the fields of a context, for ir/ctx.c and ir/expr.c alone. */
#ifndef IR_CTX_INTERNAL_H
#define IR_CTX_INTERNAL_H
#include "ir/ctx.h"

typedef struct ir_block ir_block;
typedef struct ir_frame ir_frame;
typedef struct ir_deferred {
  void (*fn)(void *arg);
  void *arg;
} ir_deferred;

typedef struct ir_expr_entry { /* the hash is the expression's: others are passed over without a look at them */
  uint64_t hash;
  const struct tn_expr *e; /* null: free */
} ir_expr_entry;

struct tn_ctx {
  tn_config config;
  tn_ctx *parent;
  ir_block *blocks;
  size_t next_block, arena_bytes;
  long fail_after;
  uint64_t seed[2]; /* of the tables' hashes: the parent's, so that a child finds what the parent made */
  const char **strings; /* interned: open addressing, cap a power of two */
  size_t strings_n, strings_cap;
  struct ir_expr_entry *exprs; /* hash-consed expressions, likewise */
  size_t exprs_n, exprs_cap;
  const struct ir_layout **layouts; /* interned by text; few */
  size_t layouts_n;
  uint32_t next_id; /* of expressions, variables and buffers: gives a stable order */
  /* Memo of a walk over expressions, indexed by id; a stamp says whether an entry counts. */
  struct {
    uint32_t *stamp;
    const void **value;
    size_t cap;
    uint32_t now;
    bool busy; /* a walk inside a walk gets a memo of its own */
  } memo;
  ir_frame *frame;
  ir_deferred *deferred;
  size_t deferred_n, deferred_cap;
  const char *where;
  tn_status status;
  char message[2048];
};

/* Mixes two words under a key, for tables whose keys come out of files: the 128-bit
 * product of Wang Yi's wyhash (2019). Without the key nobody can choose colliding words. */
static inline uint64_t ir_mix(uint64_t a, uint64_t b) {
  unsigned __int128 p = (unsigned __int128)a * b;
  return (uint64_t)p ^ (uint64_t)(p >> 64);
}
#endif
