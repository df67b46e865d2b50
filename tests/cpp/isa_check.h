// A test built once per instruction set defines this; isa_main.cc calls it where it can run.
#pragma once

void check_isa();
