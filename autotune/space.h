/* space.h — the schedules that are worth a look for one kernel.
 *
 * A point is a set of tunables; its schedule is text. Points that come out as the same text
 * are one. A point knows what the analytical model expects of it, and the space is in that
 * order. A point costs half a millisecond and no run. A space starts from the product of the
 * tunables that matter most and draws from all of them, a few in each round, until there are AT_SPACE_POINTS.
 */
#ifndef AT_SPACE_H
#define AT_SPACE_H
#include "autotune/cost.h"

typedef enum at_source { AT_OWN, AT_NEARBY, AT_STALE } at_source;

typedef struct at_point {
  lw_tunables u;        /* that it was made from, 0 where the rule chose; zero when it is not the space's own */
  lw_tunables got;      /* what became of them: what it is known by */
  at_source source;     /* nearby: the winner of another kernel; stale: of another code generator */
  const char *schedule; /* canonical text */
  uint64_t hash;        /* of the text */
  double predicted_ns;
  int steps;            /* of at_space_near that were taken from here */
} at_point;

enum {
  AT_SPACE_FIRST = 128,  /* points that a search starts from */
  AT_SPACE_MORE = 16,    /* that each round adds: making them takes a few hundredths of its time */
  AT_SPACE_POINTS = 1200,
  AT_SPACE_QUEUE = 8     /* points whose neighbours may be waited for */
};

typedef struct at_space {
  int n;
  at_point *points;    /* those of the start by predicted time, then text */
  double accuracy;
  int threads;         /* that share the tasks; 0 and 1: one */
  const char *standard; /* canonical text of the default schedule; one of the points */
  bool split;           /* the default cuts its sum in parts to have tasks: all points may then, as times of one thread alone would let none */
  int made, pruned, doubles; /* tunables looked at; out by registers; out as doubles */
  uint64_t random;      /* state of at_space_fill: the same points whenever the space is made */
  struct maker *maker;
  /* what at_space_work is to do: */
  int tile;             /* the next of those that a space starts from; -1: none */
  int want;             /* random ones until there are so many, */
  int patience, vain;   /* or so many draws in turn have given nothing new; how many have */
  int near[AT_SPACE_QUEUE], nnear; /* the points that are stepped from, the first before the next */
} at_space;

/* Lives in ctx, where the kernel, target and machine that later calls are given must live too. `accuracy` as in
 * lw_options; `threads` that share the tasks: more than one make the axis a tunable. `want`: about so many points; 0: the default schedule alone. */
at_space *at_space_new(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const at_machine *m, double accuracy, int threads, int want);
/* One more point from its text as stores have it, if that is legal for the kernel and new; at the end. */
void at_space_add(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m, const char *schedule, at_source source);
/* The next three only say what is wanted; at_space_work does it, a point a call, and is false when nothing is left.
 * The start: every register tile, every algorithm, then random points until there are `want`. */
void at_space_start(at_space *s, int want);
/* Those one step from a point of the space's own, after those asked for before; a point too many is left out. */
void at_space_near(at_space *s, int point);
/* Random ones until there are `want`, or `patience` draws in turn gave nothing new. */
void at_space_fill(at_space *s, int want, int patience);
bool at_space_wants(const at_space *s);
bool at_space_work(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m);
/* More points: n canonical schedules in the kernel's own names, known by these tunables. Their indices: -1 where one is not legal. */
int *at_space_put(tn_ctx *ctx, at_space *s, const ir_kernel *k, const cg_target *t, const at_machine *m, int n, const lw_tunables *got, const char *const *schedule);
uint64_t at_schedule_hash(const char *schedule);
/* Index of the point with that text; -1. */
int at_space_find(const at_space *s, const char *schedule);
/* A point as numbers: its tunables, accumulators of the tile, logarithm of the predicted time. */
enum { AT_KNOBS = 19, AT_FEATURES = AT_KNOBS + 2 };
void at_point_features(const at_point *p, double out[AT_FEATURES]);
/* How unlike two points are: the number of tunables that differ, weighted by how far; 0 for the same. */
double at_space_distance(const at_point *a, const at_point *b);

/* Tunables as text, "mr=6 nr=2"; those that are 0 are left out. False: no such text. */
const char *at_tunables_print(tn_ctx *ctx, const lw_tunables *u);
bool at_tunables_parse(const char *text, lw_tunables *u);
uint64_t at_random(uint64_t *state); /* splitmix64 */
#endif
