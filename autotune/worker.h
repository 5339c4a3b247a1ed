/* worker.h — inside of the lab: what tuner and workers agree on. */
#ifndef AT_WORKER_H
#define AT_WORKER_H
#include "autotune/frames.h"
#include "autotune/measure.h"

/* Requests and their fields; each answer begins with a status (at_status) and a reason.
 * Texts of kernels are ir_kernel_print. */
typedef enum at_request {
  AT_DO_COMPILE, /* kernel, schedule -> ms, spills, tasks, scratch, phases (count, tasks of each), layouts (count, texts), object */
  AT_DO_KERNEL,  /* kernel, sampled, references (count, bytes; 0: to be computed) -> sampled, references */
  AT_DO_LOAD,    /* ids to forget (count, ids), id, schedule, tasks, scratch, phases, layouts, object -> */
  AT_DO_TIME,    /* rounds so far, rounds, count, ids -> per round and id: nanoseconds, disturbed */
  AT_DO_PROBE    /* -> ghz, gflops */
} at_request;

/* Memory shared by a worker and the tuner. */
typedef struct at_shared {
  volatile int64_t beats;   /* grows while it makes progress: the limits count from the last beat */
  volatile int64_t current; /* id of the candidate that runs now; 0: none */
  volatile int64_t rounds;  /* whole rounds of the present AT_DO_TIME */
  char note[120];           /* what the signal handler saw: a guard zone; "" else */
} at_shared;

enum { AT_EXIT_OOM = 77, AT_MOST_TIMED = 64, AT_MOST_BUFFERS = 64 };

/* Serves requests on fd until the other end closes it. Never returns. */
void at_worker_main(int fd, at_shared *shared, const at_lab_options *o) IR_NORETURN;
#endif
