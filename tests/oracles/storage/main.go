// Kubernetes' own storage over a running etcd, asked by JSON lines on standard input.
//
// The first line out names the release of k8s.io/apiserver. Then each request is answered by one line, in order. A
// configuration is loaded exactly as kube-apiserver loads the file of --encryption-provider-config; the storage is what
// kube-apiserver puts under its registry of a resource, without the watch cache in between. What it reads goes through
// the transformer and the decoder, so an object in an answer is one that a client would have got.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
)

type request struct {
	Do       string `json:"do"` // list, get or watch
	Endpoint string `json:"endpoint"`
	Prefix   string `json:"prefix"` // --etcd-prefix
	Config   string `json:"config"` // empty: no encryption
	Resource string `json:"resource"`
	Name     string `json:"name"`     // get: namespace/name
	Revision string `json:"revision"` // list: exactly this one; watch: from here on
	Events   int    `json:"events"`   // watch: ends after so many
}

// object is a decoded object, or an event about one.
type object struct {
	Type   string         `json:"type,omitempty"`
	Object runtime.Object `json:"object"`
}

type answer struct {
	Revision string   `json:"revision"`
	Objects  []object `json:"objects"`
	Error    string   `json:"error"`
	Reason   string   `json:"reason"` // of errors that say which kind they are
}

// kinds are the resources that are asked for.
var kinds = map[string]struct{ one, list func() runtime.Object }{
	"secrets": {
		func() runtime.Object { return &corev1.Secret{} },
		func() runtime.Object { return &corev1.SecretList{} },
	},
	"configmaps": {
		func() runtime.Object { return &corev1.ConfigMap{} },
		func() runtime.Object { return &corev1.ConfigMapList{} },
	},
}

const patience = 20 * time.Second

func open(ctx context.Context, ask request, folder string) (storage.Interface, factory.DestroyFunc, error) {
	kind, known := kinds[ask.Resource]
	if !known {
		return nil, nil, fmt.Errorf("oracle: no resource %q", ask.Resource)
	}
	info, found := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !found {
		return nil, nil, fmt.Errorf("oracle: no protobuf")
	}
	version := corev1.SchemeGroupVersion
	codec := scheme.Codecs.CodecForVersions(info.Serializer, scheme.Codecs.UniversalDeserializer(), version, version)
	config := storagebackend.NewDefaultConfig(ask.Prefix, codec)
	config.CompactionInterval = 0 // it looks and does not touch
	config.Transport.ServerList = []string{ask.Endpoint}
	resource := schema.GroupResource{Resource: ask.Resource}
	if ask.Config != "" {
		path := filepath.Join(folder, "config.yaml")
		if err := os.WriteFile(path, []byte(ask.Config), 0o600); err != nil {
			return nil, nil, err
		}
		loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, path, false, "oracle")
		if err != nil {
			return nil, nil, err
		}
		transformers := encryptionconfig.StaticTransformers(loaded.Transformers)
		config.Transformer = transformers.TransformerForResource(resource)
	}
	return factory.Create(*config.ForResource(resource), kind.one, kind.list, "/"+ask.Resource)
}

func (ask request) answer(folder string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	store, destroy, err := open(ctx, ask, folder)
	if err != nil {
		return failed(err)
	}
	defer destroy()
	switch ask.Do {
	case "list":
		return ask.list(ctx, store)
	case "get":
		into := kinds[ask.Resource].one()
		if err := store.Get(ctx, "/"+ask.Resource+"/"+ask.Name, storage.GetOptions{}, into); err != nil {
			return failed(err)
		}
		return answer{Objects: []object{{Object: into}}}
	case "watch":
		return ask.watch(ctx, store)
	}
	return answer{Error: fmt.Sprintf("oracle: cannot %q", ask.Do)}
}

func (ask request) list(ctx context.Context, store storage.Interface) answer {
	options := storage.ListOptions{Predicate: storage.Everything, Recursive: true}
	if ask.Revision != "" {
		options.ResourceVersion, options.ResourceVersionMatch = ask.Revision, "Exact"
	}
	into := kinds[ask.Resource].list()
	if err := store.GetList(ctx, "/"+ask.Resource, options, into); err != nil {
		return failed(err)
	}
	items, err := meta.ExtractList(into)
	if err != nil {
		return failed(err)
	}
	list, err := meta.ListAccessor(into)
	if err != nil {
		return failed(err)
	}
	out := answer{Revision: list.GetResourceVersion(), Objects: []object{}}
	for _, item := range items {
		out.Objects = append(out.Objects, object{Object: item})
	}
	return out
}

func (ask request) watch(ctx context.Context, store storage.Interface) answer {
	options := storage.ListOptions{ResourceVersion: ask.Revision, Predicate: storage.Everything, Recursive: true}
	watcher, err := store.Watch(ctx, "/"+ask.Resource, options)
	if err != nil {
		return failed(err)
	}
	defer watcher.Stop()
	out := answer{Objects: []object{}}
	for len(out.Objects) < ask.Events {
		event, open := <-watcher.ResultChan()
		if !open {
			out.Error = fmt.Sprintf("the watch ended after %d events", len(out.Objects))
			return out
		}
		if event.Type == watch.Error {
			failure := failed(apierrors.FromObject(event.Object))
			out.Error, out.Reason = failure.Error, failure.Reason
			return out
		}
		out.Objects = append(out.Objects, object{Type: string(event.Type), Object: event.Object})
	}
	return out
}

func failed(err error) answer {
	return answer{Error: err.Error(), Reason: string(apierrors.ReasonForError(err))}
}

func release() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "k8s.io/apiserver" {
			return strings.Replace(module.Version, "v0.", "1.", 1)
		}
	}
	return "unknown"
}

func run() error {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	folder, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]string{"release": release()}); err != nil {
		return err
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		var ask request
		if err := json.Unmarshal(line, &ask); err != nil {
			return err
		}
		if err := out.Encode(ask.answer(folder)); err != nil {
			return err
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}
