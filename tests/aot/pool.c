/* pool.c — the thread pool, used hard: for ThreadSanitizer. Returns 0 when every task ran once. */
#include "runtime/threads.h"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { TASKS = 37 };

typedef struct region {
  int seen[TASKS];  /* not atomic: a task that runs twice, or a result read too early, is a race */
  int64_t sums[8][8];
} region;

static void body(void *arg, int task, int worker) {
  region *r = arg;
  r->seen[task]++;
  r->sums[worker][0] += task;
}

static void *caller(void *arg) {
  const rt_threads *t = arg;
  for (int i = 0; i < 500; i++) {
    region r = {0};
    int tasks = 1 + i % TASKS;
    t->parallel_for(t->ctx, tasks, body, &r);
    int64_t sum = 0;
    for (int w = 0; w < 8; w++) sum += r.sums[w][0];
    for (int k = 0; k < tasks; k++)
      if (r.seen[k] != 1) exit(1);
    if (sum != (int64_t)tasks * (tasks - 1) / 2) exit(1);
    if (i % 100 == 99) usleep(2000); /* workers fall asleep */
  }
  return NULL;
}

int main(void) {
  for (int workers = 1; workers <= 4; workers++) {
    rt_pool *p = rt_pool_new(workers);
    if (!p) return 1;
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
      if (pthread_create(&t[i], NULL, caller, (void *)rt_pool_threads(p)) != 0) return 1;
    caller((void *)rt_pool_threads(p));
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    rt_pool_free(p);
  }
  return 0;
}
