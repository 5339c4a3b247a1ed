/* cli_later.c — verbs that are still to come. */
#include "frontend/cli.h"

void cli_later(cli *c, int argc, char **argv) {
  (void)argc, (void)argv;
  ir_fail(c->ctx, TN_EUNSUPPORTED, "tenon %s is not there yet", c->verb->name);
}
