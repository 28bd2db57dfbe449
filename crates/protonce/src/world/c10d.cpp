// The processes that train together, by libtorch's c10d: a store to meet at, messages between any two
// (gloo, in the processor's memory) and, where there is CUDA, sums on GPUs (NCCL). The other half is
// c10d.rs.

#include <cstdint>
#include <cstdio>

namespace {

// A sentence that crosses from one language to the other (message.rs); empty when nothing went wrong.
struct Message {
    char text[1024];
};

// How a process joins the others (c10d.rs).
struct Joining {
    const char *host;
    const char *prefix;
    // The network card: the name of its interface, or else its address.
    const char *interface_name;
    const char *address;
    std::int64_t timeout_ms;
    std::int32_t rank;
    std::int32_t size;
    std::int32_t port;
    // Whether this process holds the store.
    std::int32_t serve;
};

// A stretch of memory that is sent to a process, or filled by what comes from it.
struct Parcel {
    void *bytes;
    std::int64_t length;
    std::int32_t process;
    // Tells the parcels between two processes apart.
    std::int32_t tag;
};

using Take = void (*)(void *context, const std::uint8_t *bytes, std::size_t length);

}  // namespace

#ifdef PROTONCE_GLOO

#define USE_C10D_GLOO
#ifdef PROTONCE_NCCL
#define USE_C10D_NCCL
#endif

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef PROTONCE_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace {

struct Group {
    c10::intrusive_ptr<c10d::Store> store;
    c10::intrusive_ptr<c10d::Backend> gloo;
    c10::intrusive_ptr<c10d::Backend> nccl;
    std::int32_t rank;
    std::int32_t size;
    std::chrono::milliseconds timeout;
};

// Runs `body`; an exception must not unwind through Rust.
template <typename Body>
void guarded(Message *message, Body body) {
    try {
        body();
    } catch (const c10::Error &error) {
        std::snprintf(message->text, sizeof message->text, "%s", error.what_without_backtrace());
    } catch (const std::exception &error) {
        std::snprintf(message->text, sizeof message->text, "%s", error.what());
    } catch (...) {
        std::snprintf(message->text, sizeof message->text, "an unknown exception");
    }
}

std::vector<at::Tensor> tensor_over(const Parcel &parcel) {
    return {at::from_blob(parcel.bytes, {parcel.length}, at::TensorOptions().dtype(at::kByte))};
}

}  // namespace

extern "C" {

// Goes to the store. `protonce_world_connect` follows.
Group *protonce_world_join(const Joining *joining, Message *message) {
    Group *result = nullptr;
    guarded(message, [&] {
        // Errors come back as messages; c10d would print backtraces of its own as well.
        setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);
        c10::initLogging();
        c10d::TCPStoreOptions options;
        options.port = static_cast<std::uint16_t>(joining->port);
        options.isServer = joining->serve != 0;
        options.numWorkers = joining->size;
        options.waitWorkers = false;
        options.timeout = std::chrono::milliseconds(joining->timeout_ms);
        auto group = std::make_unique<Group>();
        group->rank = joining->rank;
        group->size = joining->size;
        group->timeout = options.timeout;
        group->store = c10::make_intrusive<c10d::PrefixStore>(
            joining->prefix, c10::make_intrusive<c10d::TCPStore>(joining->host, options));
        result = group.release();
    });
    return result;
}

// Connects every two processes; those that do not come within the time of `protonce_world_join` are an
// error. From then on `timeout_ms` counts.
void protonce_world_connect(Group *group, const Joining *joining, std::int64_t timeout_ms,
                            Message *message) {
    guarded(message, [&] {
        auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
        const std::string interface_name = joining->interface_name;
        options->devices.push_back(
            interface_name.empty()
                ? c10d::ProcessGroupGloo::createDeviceForHostname(joining->address)
                : c10d::ProcessGroupGloo::createDeviceForInterface(interface_name));
        options->threads = 2;
        group->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(group->store, group->rank,
                                                                  group->size, options);
    });
}

// Adds sums on GPU number `device`.
void protonce_world_connect_gpu(Group *group, std::int32_t device, std::int64_t timeout_ms,
                                Message *message) {
    guarded(message, [&] {
#ifdef PROTONCE_NCCL
        auto options = c10d::ProcessGroupNCCL::Options::create();
        options->timeout = std::chrono::milliseconds(timeout_ms);
        auto store = c10::make_intrusive<c10d::PrefixStore>("nccl", group->store);
        auto nccl =
            c10::make_intrusive<c10d::ProcessGroupNCCL>(store, group->rank, group->size, options);
        const at::Device gpu(at::kCUDA, static_cast<c10::DeviceIndex>(device));
        nccl->setBoundDeviceId(gpu);
        nccl->eagerConnectSingleDevice(gpu);
        group->nccl = nccl;
#else
        (void)group, (void)device, (void)timeout_ms;
        throw std::runtime_error("this protonce was built without NCCL");
#endif
    });
}

// Leaves the others, who notice it at once. The store stays.
void protonce_world_leave(Group *group, Message *message) {
    guarded(message, [&] {
        group->nccl.reset();
        group->gloo.reset();
    });
}

void protonce_world_drop(Group *group) { delete group; }

// Sends and receives, all at once, and waits until everything has gone and come.
void protonce_world_exchange(Group *group, const Parcel *sent, std::size_t sent_count,
                             const Parcel *received, std::size_t received_count,
                             Message *message) {
    guarded(message, [&] {
        if (!group->gloo) throw std::runtime_error("this process has left the others");
        std::vector<c10::intrusive_ptr<c10d::Work>> works;
        for (std::size_t i = 0; i < received_count; ++i) {
            auto tensors = tensor_over(received[i]);
            works.push_back(group->gloo->recv(tensors, received[i].process, received[i].tag));
        }
        for (std::size_t i = 0; i < sent_count; ++i) {
            auto tensors = tensor_over(sent[i]);
            works.push_back(group->gloo->send(tensors, sent[i].process, sent[i].tag));
        }
        for (auto &work : works) work->wait();
    });
}

// Puts the sum over all processes in the place of `tensor`, which is on the GPU.
void protonce_world_sum(Group *group, at::Tensor *tensor, Message *message) {
    guarded(message, [&] {
        if (!group->nccl) throw std::runtime_error("this process has left the others");
        std::vector<at::Tensor> tensors{*tensor};
        group->nccl->allreduce(tensors)->wait();
    });
}

void protonce_world_set(Group *group, const char *key, const std::uint8_t *bytes,
                        std::size_t length, Message *message) {
    guarded(message, [&] {
        group->store->set(key, std::vector<std::uint8_t>(bytes, bytes + length));
    });
}

// Waits for `key` and hands over its value.
void protonce_world_get(Group *group, const char *key, std::int64_t timeout_ms, Take take,
                        void *context, Message *message) {
    guarded(message, [&] {
        group->store->wait({key}, std::chrono::milliseconds(timeout_ms));
        const auto value = group->store->get(key);
        take(context, value.data(), value.size());
    });
}

// Whether `key` has been set.
int protonce_world_check(Group *group, const char *key, Message *message) {
    int found = 0;
    guarded(message, [&] { found = group->store->check({key}) ? 1 : 0; });
    return found;
}

}  // extern "C"

#else

namespace {

struct Group;

void refuse(Message *message) {
    std::snprintf(message->text, sizeof message->text,
                  "the libtorch that protonce was built with has no gloo");
}

}  // namespace

extern "C" {

Group *protonce_world_join(const Joining *, Message *message) {
    refuse(message);
    return nullptr;
}
void protonce_world_connect(Group *, const Joining *, std::int64_t, Message *m) { refuse(m); }
void protonce_world_connect_gpu(Group *, std::int32_t, std::int64_t, Message *m) { refuse(m); }
void protonce_world_leave(Group *, Message *message) { refuse(message); }
void protonce_world_drop(Group *) {}
void protonce_world_exchange(Group *, const Parcel *, std::size_t, const Parcel *, std::size_t,
                             Message *message) {
    refuse(message);
}
void protonce_world_sum(Group *, void *, Message *message) { refuse(message); }
void protonce_world_set(Group *, const char *, const std::uint8_t *, std::size_t, Message *message) {
    refuse(message);
}
void protonce_world_get(Group *, const char *, std::int64_t, Take, void *, Message *message) {
    refuse(message);
}
int protonce_world_check(Group *, const char *, Message *message) {
    refuse(message);
    return 0;
}

}  // extern "C"

#endif
