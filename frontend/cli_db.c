/* cli_db.c — tenon db: handed to the tuning store. */
#include "autotune/store.h"
#include "frontend/cli.h"

void cli_db(cli *c, int argc, char **argv) {
  int status = at_db_main(c->ctx, argc, argv, c->out, false);
  if (status) ir_fail(c->ctx, (tn_status)status, "%s", ir_strdup(c->ctx, ir_error(c->ctx)));
}
