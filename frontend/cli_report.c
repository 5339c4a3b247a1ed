/* cli_report.c — tenon report: the tuning store as a page. */
#include "autotune/report.h"
#include "frontend/cli.h"
#include <string.h>

void cli_report(cli *c, int argc, char **argv) {
  const char *db = NULL, *out = NULL;
  cli_option own[] = {
      {"--db", CLI_TEXT, &db, "FILE", "the store (default: the one that tenon tune uses)"},
      {"-o", CLI_TEXT, &out, "FILE", "the page"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, false, 0, 1, "With an argument only kernels whose name contains it.\n")) return;
  if (!out) ir_fail(c->ctx, TN_EUSAGE, "tenon report: -o FILE is missing");
  if (!db) db = at_store_default_path(c->ctx);
  at_store *store = at_store_open(c->ctx, db, AT_STORE_READONLY | AT_STORE_STRICT);
  if (!store) ir_fail(c->ctx, TN_EUSAGE, "tenon report: there is no store");
  const char *base = strrchr(db, '/');
  const char *page = at_report(c->ctx, store, c->nargs ? c->args[0] : NULL, ir_format(c->ctx, "Tuning: %s", base ? base + 1 : db));
  fe_write_file(c->ctx, out, page, strlen(page));
  if (c->json) {
    cli_json j;
    cj_begin(&j, c->ctx);
    cj_text(&j, "page", out);
    cj_int(&j, "bytes", (int64_t)strlen(page));
    cj_end(&j, c);
  } else fprintf(c->out, "%s: %s\n", out, cli_bytes(c, (double)strlen(page)));
}
