// What tch does not offer: an operation whose backward pass is written in Rust, and libtorch's own
// threads for loops written in Rust. See autograd.rs for the meaning of each.

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

using torch::autograd::variable_list;

namespace {

using Backward = int (*)(void *closure, at::Tensor *gradient, at::Tensor **gradients);
using Drop = void (*)(void *closure);

// A node of the autograd graph that asks a Rust closure for its inputs' gradients.
struct RustNode : torch::autograd::Node {
    void *closure;
    Backward backward;
    Drop drop;
    std::size_t inputs;

    RustNode(void *closure, Backward backward, Drop drop, std::size_t inputs)
        : closure(closure), backward(backward), drop(drop), inputs(inputs) {}

    ~RustNode() override { release_variables(); }

    void release_variables() override {
        if (closure != nullptr) drop(closure);
        closure = nullptr;
    }

    variable_list apply(variable_list &&outputs) override {
        variable_list result(inputs);
        if (!outputs[0].defined()) return result;
        if (closure == nullptr) throw std::runtime_error("the graph was freed by a backward pass");
        std::vector<at::Tensor *> gradients(inputs, nullptr);
        const int status = backward(closure, &outputs[0], gradients.data());
        for (std::size_t i = 0; i < inputs; ++i) {
            if (gradients[i] == nullptr) continue;
            result[i] = std::move(*gradients[i]);
            delete gradients[i];
        }
        if (status != 0) throw std::runtime_error("a backward pass written in Rust panicked");
        return result;
    }
};

}  // namespace

extern "C" {

// Makes `output` a function of `inputs`. Takes over `closure`.
void protonce_attach(at::Tensor *output, at::Tensor **inputs, std::size_t count, void *closure,
                     Backward backward, Drop drop) {
    variable_list variables;
    for (std::size_t i = 0; i < count; ++i) variables.push_back(*inputs[i]);
    auto node = std::make_shared<RustNode>(closure, backward, drop, count);
    node->set_next_edges(torch::autograd::collect_next_edges(variables));
    torch::autograd::set_history(*output, node);
}

void protonce_parallel_for(std::int64_t count, std::int64_t grain,
                           void (*body)(void *context, std::int64_t begin, std::int64_t end),
                           void *context) {
    at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
        body(context, begin, end);
    });
}

}  // extern "C"
