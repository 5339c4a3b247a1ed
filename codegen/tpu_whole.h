/* tpu_whole.h — whole programs on the systolic machine: what each core does, where slots live, control flow.
 *
 *   tpu_model.c   the instructions of the program, twice: first only to see who touches what, then for good
 *   tpu_cores.c   how cores share a nest of loops; what crosses between them
 *   tpu_place.c   which slots lie on the chip, which in DRAM
 */
#ifndef TPU_WHOLE_H
#define TPU_WHOLE_H
#include "codegen/tpu_lower.h"

/* ---- cores: tpu_cores.c ----
 *
 * Each core has a text, an on-chip memory and a stretch of every nest's iterations. A step is what cores do without
 * looking at each other: one nest, a copy, a condition. */
typedef struct tc_touch { /* bytes [lo, hi) of a slot that a core reads or writes in a step */
  int slot, core;
  bool write;
  int64_t lo, hi;
} tc_touch;

struct tc_cores {
  tn_ctx *ctx;
  ir_map shares;        /* statement -> tc_share */
  bool survey;          /* nothing is made: touches are gathered */
  bool everyone;        /* each core does all of a nest: conditions */
  const int *slots;     /* of the running kernel's parameters */
  const tc_home *homes;
  int ntouches;
  tc_touch *touches;    /* of all steps in order */
  int nsteps;
  int *first;           /* touches of step s: first[s] and on, first[s + 1] the end */
  int step;             /* the next one */
  int nopen;
  tc_touch *open;       /* in DRAM, by address, since the cores last met */
};

void tc_step_begin(tc *c);                                     /* survey: touches that follow belong to a new step */
void tc_touch_slot(tc *c, int core, int slot, bool write, int64_t lo, int64_t hi);
/* Before a step is made: the cores meet if it touches what another core wrote, or writes what another touched, since
 * they last did. home: by slot. */
void tc_step_meet(tc *c, const tc_home *home);
void tc_meet(tc *c);                                           /* a barrier; of one core a fence */
/* Whether a core reads what another writes among bytes of the slots for which of(user, slot) holds; bytes counted from
 * base(user, slot). */
bool tc_crosses(const tc_cores *s, bool (*of)(void *user, int slot, int64_t *base), void *user);

/* ---- where slots live: tpu_place.c ---- */
typedef struct tw_group { /* slots that are one memory seen differently: what one writes another reads */
  int parent;          /* union-find over slots */
  int first, last;     /* instructions of the program */
  int64_t lo, hi;      /* bytes of the arena */
  int64_t row;         /* elements of the last axis, the same for all who touch it; 0: none did yet; -1: they differ */
  int width;           /* bytes of an element */
  bool resident;
  int64_t offset;      /* on the chip */
} tw_group;

typedef struct tw_write {
  int slot;
  bool perhaps;        /* under a condition, or not the first time */
} tw_write;

typedef struct tw { /* a program on its way */
  tc *c;
  const ir_program *p;
  tc_home *home;       /* by slot */
  tw_group *group;     /* by slot; what it says counts for roots */
  int nwrites;
  tw_write *writes;    /* in order */
  int ncalls;
  int nlets;
  struct tw_let *lets; /* in scope */
} tw;

void tw_place(tw *x);
/* Slots that a value of the program reads, one after another, until there are no more: -1. */
int tw_value_slot(const tw *x, ix value, int nth);
#endif
