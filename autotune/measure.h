/* measure.h — isolated workers that compile candidates and time them.
 *
 *   tuner ── frames ──┬── worker 0: checks and times, alone
 *                     └── workers 1..jobs: compile, at the same time
 *
 * A worker is a fork of this process that keeps running. Whatever a candidate does to it is a
 * status of the candidate: it is killed past its limit, and another one takes its place. No
 * candidate is run in this process. Nothing measures while anything compiles.
 *
 * How a time is made: a call is repeated until a sample takes 200 µs or so; constants that do
 * not fit the first-level cache come in copies, of which each is used once from memory and once
 * from the caches (a layer in a model finds its weights cold, in one or the other); a sample during which the thread was switched out, or whose wall time
 * is not its CPU time, is taken again. Where nothing undisturbed can be had, as with calls of
 * many milliseconds on a busy machine, CPU times stand in and `disturbed` counts them. Candidates may run on several
 * threads, of the pool that programs have: then wall times count, of samples in which no thread was switched out.
 */
#ifndef AT_MEASURE_H
#define AT_MEASURE_H
#include "autotune/store.h"
#include "codegen/codegen.h"
#include "lower/lower.h"
#include <signal.h>

typedef struct at_limits { /* seconds of the processor; asleep, a worker has ten times as long */
  double compile_s;     /* for one candidate; 0: 20 */
  double run_s;         /* for one run of a candidate; 0: 10 */
  int64_t memory_bytes; /* that a worker may take on top of what the tuner has; 0: 4 GiB */
} at_limits;

/* What the machine does, measured by worker 0. */
typedef struct at_machine {
  double ghz;        /* simple dependent integer additions per nanosecond */
  double fma_gflops; /* f32, one core, from registers; 2 per fused multiply-add */
  int64_t l3_bytes;  /* as the system says; 0: not known */
} at_machine;

/* For tests: called inside the worker as a candidate is compiled (no arguments yet), just
 * before it runs and just after, so that it can misbehave in the candidate's name. */
typedef enum at_moment { AT_COMPILING, AT_BEFORE_RUN, AT_AFTER_RUN } at_moment;
typedef struct at_misbehave {
  void (*fn)(void *user, at_moment moment, const char *schedule, void *const *args, int nargs);
  void *user;
} at_misbehave;

typedef struct at_lab_options {
  const cg_target *target;
  int jobs;                         /* compile workers; 0: as many as CPUs */
  int threads;                      /* that candidates run on; 0 and 1: one */
  uint64_t seed;                    /* of the data */
  at_limits limits;
  double reference_work;            /* scalar statements a full reference may take; 0: 2e9 */
  volatile sig_atomic_t *stop;      /* may be null: once it is not 0 everything ends soon */
  at_misbehave misbehave;
} at_lab_options;

typedef struct at_lab at_lab;

/* One schedule of the current kernel on its way through the lab. */
typedef struct at_candidate {
  const char *schedule; /* given; "" is the unscheduled kernel */
  at_status status;     /* AT_OK as long as nothing speaks against it */
  const char *reason;   /* why not; in the lab's context */
  double compile_ms;
  int spills;           /* vector reloads and spills in the code; -1: not counted */
  const void *object;   /* code, the lab's memory; null: not compiled */
  size_t object_size;
  int64_t tasks, scratch_bytes; /* scratch: for all threads */
  int nphases;          /* as in cg_kernel_info */
  int32_t phase[CG_MAX_PHASES];
  int nlayouts;         /* of the constants, text per buffer */
  const char **layouts;
  int id;               /* in worker 0; 0: was never there */
  int64_t serial;       /* which of the lab's kernels that was */
  int n, disturbed;     /* samples so far, how many of them are CPU times */
  double *samples;      /* nanoseconds of one call, in the order taken */
} at_candidate;

/* The workers are released with the context. */
at_lab *at_lab_new(tn_ctx *ctx, const at_lab_options *o);
void at_lab_free(at_lab *lab);
/* Nothing more is asked: the workers are killed, and not waited for until the lab is freed. */
void at_lab_stop(at_lab *lab);
/* No call below works on past this moment (rt_now); 0: none. What could not be done is left as
 * it was: look at `object` and `n`. */
void at_lab_deadline(at_lab *lab, double moment);
/* True once the deadline has passed or the stop flag is up. */
bool at_lab_over(const at_lab *lab);
/* Work of the tuner's own, done piece by piece while workers compile, check or compute references, never while one is
 * timed; false: nothing is left. What takes a piece is not waited for: short against budgets. */
void at_lab_meanwhile(at_lab *lab, bool (*work)(void *user), void *user);
void at_lab_run_limit(at_lab *lab, double seconds); /* from now on; as at_limits.run_s */
/* Has worker 0 begin to measure the machine; asking for the result is what waits. */
void at_lab_probe(at_lab *lab);
at_machine at_lab_machine(at_lab *lab); /* zeros when it cannot be measured */
int at_lab_restarts(const at_lab *lab); /* workers that died and were replaced */
/* Seconds that the calls below have taken so far: all else of a tuning run is overhead. */
typedef struct at_lab_seconds {
  double compiling;
  double checking; /* loading and verdicts, references, the machine's probe */
  double timing;
} at_lab_seconds;
at_lab_seconds at_lab_spent(const at_lab *lab);

/* What the lab keeps of a kernel between its turns: its reference. */
typedef struct at_subject {
  const ir_kernel *kernel;
  const char *text;     /* as the workers read it; made when null */
  bool sampled;
  int nreferences;
  void **reference;     /* the lab's memory */
  size_t *bytes;
} at_subject;
void at_subject_free(at_lab *lab, at_subject *s); /* at the latest the lab does */

/* The kernel that the calls below are about: draws its data and computes the reference, the first
 * time. `s` must live until the next call. Null, or why it cannot be measured; "" when there was no
 * time for it. */
const char *at_lab_kernel(at_lab *lab, at_subject *s);
/* Compiles those without code, in parallel. */
void at_lab_compile(at_lab *lab, int n, at_candidate *const *c);
/* Loads and checks those with code that are AT_OK and not there yet. */
void at_lab_check(at_lab *lab, int n, at_candidate *const *c);
/* Whether it is there, ready to be timed. */
bool at_lab_has(const at_lab *lab, const at_candidate *c);
/* `rounds` more samples of each, interleaved, every other round in reverse order (ABBA). Candidates
 * that are not there are left out. False when it could not be finished; whole rounds count. */
bool at_lab_time(at_lab *lab, int n, at_candidate *const *c, int rounds);
/* The worker forgets it, before it loads another; checked again, it lies elsewhere in memory. */
void at_lab_unload(at_lab *lab, at_candidate *c);
/* Forgets its code; the samples stay. */
void at_lab_drop(at_lab *lab, at_candidate *c);

#endif
