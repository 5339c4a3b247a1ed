/* An outside program against the installed header and library. */
#include <stdio.h>
#include <tenon.h>

int main(void) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  if (!ctx) return 1;
  printf("context made, error text '%s'\n", tn_error(ctx));
  tn_ctx_free(ctx);
  return 0;
}
