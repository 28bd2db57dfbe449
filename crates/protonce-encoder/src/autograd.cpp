// What tch does not offer: an operation whose backward pass is written in Rust and gradients for a given
// gradient of the output (autograd.rs), the two gradients of a convolution one by one and convolutions on
// a GPU that give the same bits every time (convolution/libtorch.rs), libtorch's own threads for loops
// written in Rust (parallel.rs), and page-locked memory that a GPU reads by itself (upload.rs).

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

using torch::autograd::variable_list;

namespace {

// A sentence that crosses from one language to the other (message.rs); empty when nothing went wrong.
struct Message {
    char text[1024];
};

using Backward = void (*)(void *closure, at::Tensor *gradient, at::Tensor **gradients, Message *);
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
        Message message = {};
        backward(closure, &outputs[0], gradients.data(), &message);
        for (std::size_t i = 0; i < inputs; ++i) {
            if (gradients[i] == nullptr) continue;
            result[i] = std::move(*gradients[i]);
            delete gradients[i];
        }
        if (message.text[0] != 0) throw std::runtime_error(message.text);
        return result;
    }
};

// Runs `body`; an exception must not unwind through Rust.
template <typename Body>
void guarded(Message *message, Body body) {
    try {
        body();
    } catch (const std::exception &error) {
        std::snprintf(message->text, sizeof message->text, "%s", error.what());
    }
}

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

// Gradients of `inputs` for the `gradient` of `output`; frees the graph.
void protonce_gradients(at::Tensor *output, at::Tensor *gradient, at::Tensor **inputs,
                        std::size_t count, at::Tensor **gradients, Message *message) {
    guarded(message, [&] {
        variable_list variables;
        for (std::size_t i = 0; i < count; ++i) variables.push_back(*inputs[i]);
        auto found = torch::autograd::grad({*output}, variables, {*gradient}, false, false);
        for (std::size_t i = 0; i < count; ++i) gradients[i] = new at::Tensor(std::move(found[i]));
    });
}

// The gradient of a convolution's weight, or of its input `x`.
at::Tensor *protonce_convolution_gradient(at::Tensor *gradient, at::Tensor *x, at::Tensor *weight,
                                          std::int64_t stride, std::int64_t padding,
                                          std::int64_t groups, int of_weight, Message *message) {
    at::Tensor *result = nullptr;
    guarded(message, [&] {
        const std::array<std::int64_t, 2> strides = {stride, stride}, paddings = {padding, padding};
        const std::array<std::int64_t, 2> ones = {1, 1}, zeros = {0, 0};
        auto found = at::convolution_backward(*gradient, *x, *weight, c10::nullopt, strides, paddings,
                                              ones, false, zeros, groups,
                                              {of_weight == 0, of_weight != 0, false});
        result = new at::Tensor(of_weight != 0 ? std::get<1>(found) : std::get<0>(found));
    });
    return result;
}

void protonce_parallel_for(std::int64_t count, std::int64_t grain,
                           void (*body)(void *context, std::int64_t begin, std::int64_t end),
                           void *context) {
    at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
        body(context, begin, end);
    });
}

at::Tensor *protonce_pinned(at::Tensor *tensor, Message *message) {
    at::Tensor *result = nullptr;
    guarded(message, [&] { result = new at::Tensor(tensor->pin_memory()); });
    return result;
}

void protonce_deterministic_cudnn() { at::globalContext().setDeterministicCuDNN(true); }

}  // extern "C"
