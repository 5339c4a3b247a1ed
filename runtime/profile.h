/* profile.h — when each kernel call of a run began and ended, on which worker; as a table and
 * as a Chrome trace (chrome://tracing, Perfetto). */
#ifndef RT_PROFILE_H
#define RT_PROFILE_H
#include "ir/ctx.h"

typedef struct rt_span {
  const char *name;   /* the nodes that the call covers */
  const char *kernel; /* the kernel's name */
  int run;            /* number of the run, from 0 */
  int call;           /* number of the call within the run */
  int worker;         /* -1: the whole call */
  int tasks;          /* that this worker did, or of the whole call */
  double start, end;  /* seconds since the profile began */
} rt_span;

typedef struct rt_profile {
  tn_ctx *ctx;
  double zero;     /* clock value at the beginning */
  int runs;
  int nspans;
  rt_span *spans;
} rt_profile;

rt_profile *rt_profile_new(tn_ctx *ctx);
double rt_now(void); /* seconds, monotonic */
void rt_profile_add(rt_profile *p, rt_span s); /* start, end: values of rt_now */
/* Calls by time, longest first: median over the runs, share, tasks; at most `most` rows (0: all). */
const char *rt_profile_table(tn_ctx *ctx, const rt_profile *p, int most);
/* The JSON object format of trace events: one thread per worker, microseconds. */
const char *rt_profile_trace(tn_ctx *ctx, const rt_profile *p, const char *model);
/* One call as a row of a report. */
typedef struct rt_profile_row {
  const char *name, *kernel;
  int tasks;
  double median, min; /* seconds over the runs */
} rt_profile_row;
/* Rows in order of the calls; returns their number. */
int rt_profile_rows(tn_ctx *ctx, const rt_profile *p, rt_profile_row **rows);
#endif
