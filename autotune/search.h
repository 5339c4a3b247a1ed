/* search.h — inside of the tuner: what is known about one kernel, and what to try next. */
#ifndef AT_SEARCH_H
#define AT_SEARCH_H
#include "autotune/final.h"
#include "autotune/space.h"
#include "autotune/tune.h"

enum {
  AT_STAGE_FINAL = 9, /* of a trial: an interleaved final */
  AT_FINAL_WEIGHT = 2, /* races that a final counts as */
  AT_BATCH = 8,       /* schedules in a round */
  AT_FINALISTS = 12,  /* rivals of the default in a wide final */
  AT_PATIENCE = 96    /* schedules without a gain before a kernel counts as done, twice as many while more is promised */
};
/* Origins of the rows of a final; the second also says that the search was over. */
#define AT_FINAL "final"
#define AT_SETTLED "settled"
#define AT_DEFAULT "default" /* timed alone, to begin with */

typedef struct at_config {
  const char *schedule;
  uint64_t hash;        /* at_schedule_hash */
  int point;            /* in the space; -1: not there (from elsewhere, or of an older space) */
  at_status status;
  double ns;            /* time of a call on the scale of the default's, dearer where few samples stand behind it; NaN: not timed */
  double plain_ns;      /* the median on that scale */
  int samples;          /* behind it */
  int again;            /* races it was in to be timed anew: its times are their means */
  int founded;          /* rounds of the final that it counts by in a store, as that has the most; 0: none */
  double founded_ns;    /* its time there */
  int64_t order;        /* when it was first tried */
  bool won;             /* the last final */
  bool seen;            /* for those who walk over all */
  const char *origin;
  at_candidate c;
} at_config;

typedef struct at_task {
  at_tune_state state;
  const ir_kernel *kernel;
  at_subject subject;
  at_key key;
  at_space *space;      /* null until prepared */
  int n;
  at_config **configs;  /* tried, in this order */
  at_config *standard, *best;
  double scale_ns;      /* the default's time that all others are relative to; NaN: not known */
  int64_t final_at;     /* order of the last final; 0: none */
  int64_t judged_at;    /* the end of earlier runs, where they had a final; else 0 */
  int64_t settled_at;   /* order of the last final that ended the search; 0: none */
  int64_t clock;
  int idle;             /* schedules since the last gain */
  double gained_ns;     /* the time that was one: below it is the next. The fastest timed anew may look slower; that makes no gains. 0: none yet */
  double promise_ns;    /* that the most promising of the last proposals might have come to; 0: none yet */
  uint64_t rng;
  double expected;      /* fraction of its time that another round may gain */
  double round_s;       /* seconds of a round, about */
  double each_s;        /* and for each schedule in it */
  int rounds;           /* by this run */
  double switch_s;      /* seconds that giving the lab this kernel took */
  double compile_s, check_s; /* seconds to compile a schedule, with others; to load and check it, about */
  double sample_s;      /* seconds that a sample takes, disturbances included, about */
  bool wide;            /* the space is more than the default, or will be */
  struct at_elsewhere { /* what was good for other kernels, or code generators: not in the space yet */
    const char *schedule;
    at_source source;
  } *elsewhere;
  int nelsewhere;
  bool explore;         /* to try much, not to find the best soon */
  int aside;            /* as in at_tune_kernel */
  double weight;        /* calls in a run of the model, those of equal kernels included */
  struct at_learned *learned; /* by at_task_propose; null: nothing yet */
  int same_as;          /* index of an earlier task with this kernel; -1 */
} at_task;

/* Starts a space with the default alone and takes over what the store knows. */
void at_task_prepare(tn_ctx *ctx, at_task *t, const at_tune_options *o, const at_machine *m);
at_config *at_task_find(const at_task *t, const char *schedule);
at_config *at_task_add(tn_ctx *ctx, at_task *t, int point, const char *origin);
/* Asks for the space that a search starts from, once, and for what was good elsewhere. */
void at_task_widen(tn_ctx *ctx, at_task *t, const at_tune_options *o);
/* Asks for more: neighbours of this config, or random ones. */
void at_task_grow_near(at_task *t, const at_config *c);
void at_task_grow(at_task *t);
/* Makes one point of those asked for, in about half a millisecond. False: all are there. */
bool at_task_work(tn_ctx *ctx, at_task *t, const at_tune_options *o, const at_machine *m);
/* Up to `most` points that were not tried, as new configs; returns how many. */
int at_task_propose(tn_ctx *ctx, at_task *t, int most, at_config **out);
/* Frees what proposals need between rounds. */
void at_task_done(tn_ctx *ctx, at_task *t);
/* What a new schedule's result means for `idle`; then at_task_rank. */
void at_task_learn(at_task *t, const at_config *c);
/* Sets `best`: the fastest that nothing speaks against. */
void at_task_rank(at_task *t);
/* The search has ended: no points are left, or patience is over (or was, in an earlier run); with a
 * limit on trials that decides instead of patience. */
bool at_task_exhausted(const at_task *t, int64_t trials);
/* Rivals of the default for a final: up to 3, the fastest that look like a gain, with the winner of the last one; 0 when
 * there is nothing to decide. Wide: up to AT_FINALISTS, also those that look no slower than the winner. */
int at_task_finalists(const at_task *t, bool wide, at_config **out);
/* The `most` fastest, the default left out; returns how many there are. */
int at_task_fastest(const at_task *t, int most, at_config **out);
/* A final of n rounds gave it this time. */
void at_task_found(at_config *c, int n, double ns);
/* Up to AT_FINALISTS - 1 that a store puts before the winner of the last final, by one in which he was not, or was timed
 * less; returns how many. */
int at_task_overrated(const at_task *t, const at_config *winner, at_config **out);
/* What a compile would use now: the winner of the last final, or the default. */
at_config *at_task_winner(const at_task *t);
/* Takes n samples over, relative to those of the default in the same rounds (null: as they are); on the
 * scale of the default's time. What has not won a final counts as dearer: a lucky moment unseats nobody. */
void at_task_time(at_config *c, const double *samples, int n, const double *base, int nbase, double scale);
#define AT_AGAIN "again" /* origin of rows of the fastest, timed anew */
/* The same for a config that is timed anew: its times become the means of all that were; what made it look fast first
 * does not count. */
void at_task_time_again(at_config *c, const double *samples, int n, const double *base, int nbase, double scale);
#endif
