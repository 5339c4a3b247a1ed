/* cli_tune.c — tenon tune. */
#include "frontend/cli.h"

void cli_tune(cli *c, int argc, char **argv) {
  const char *list = NULL;
  double budget = 60;
  int64_t trials = 0;
  cli_option own[] = {
      {"--list", CLI_TEXT, &list, "FILE", "models and kernels, one a line"},
      {"--budget", CLI_SECONDS, &budget, "T", "for how long (default 60s)"},
      {"--trials", CLI_INT, &trials, "N", "at most so many trials of each kernel"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 0, -1, "Takes up where an earlier run with the same store left off.\n")) return;
  ir_fail(c->ctx, TN_EUNSUPPORTED, "tenon tune is not there yet: kernels run with their default schedules");
}
