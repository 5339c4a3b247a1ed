/* The smallest thing that must work: a context is made, says nothing, and goes. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>

Test(smoke, context) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_not_null(ctx);
  cr_assert_str_eq(tn_error(ctx), "");
  tn_ctx_free(ctx);
}
