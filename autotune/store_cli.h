/* store_cli.h — shared by the two halves of `tenon db`: verbs and listings. */
#ifndef AT_STORE_CLI_H
#define AT_STORE_CLI_H
#include "autotune/store_internal.h"

/* One call of `tenon db`, its arguments taken apart. */
typedef struct at_db_call {
  tn_ctx *ctx;
  at_store *store; /* strict, without shared stores; null for `path` */
  FILE *out;
  bool json, help, dry_run, repair;
  const char *verb, *db, *output, *config, *schedule, *policy, *note;
  const char **args; /* behind the verb */
  int nargs, keep, top;
  int64_t older_s, objects;
  int64_t problems;
} at_db_call;

/* A task with its counts; texts in the arena. */
typedef struct at_db_task {
  const char *uid, *kernel, *klass, *name, *target, *policy;
  const char *codegen; /* of the latest ok trial; "" */
  int64_t trials, ok, configs, last_us;
  double default_ns; /* median of the default config with that generator, or NaN */
} at_db_task;
/* Tasks that match (null: all), by name; also by --policy. */
const at_db_task *at_db_find_tasks(at_db_call *c, const char *pattern, int *n);
/* Schedule text of the config whose uid starts so; throws unless there is exactly one. */
const char *at_db_find_config(at_db_call *c, const char *prefix);

void at_db_ls(at_db_call *c);
void at_db_show(at_db_call *c);
void at_db_list_pins(at_db_call *c);
#endif
